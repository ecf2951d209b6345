"""APPLY, where finished images live: one folder a key, complete or absent, made by one builder at a time.

    images/entries/<key>/   complete; ``entry.json`` holds its facts, the other files are the image
    images/making/<key>/    somebody is building it, or was killed while doing so: never used, cleared by the next one
    images/locks/<key>      flock held by its builder; gone again when nobody builds

Folders are 0700, files 0600. What is taken from here is what was put here, bit by bit: see checksums.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.backends.images import checksums
from reconciler.paths import private_dir, write_private
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

FACTS = "entry.json"
_KEY = re.compile(r"[a-z-]+-[0-9a-f]{64}")
Facts = Mapping[str, Any]
Build = Callable[[Path], Facts]
"""Fills an empty folder and says what there is to know about it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One complete image. facts: what its builder said of it, plain JSON; digests: of its files, by their names."""

    key: str
    folder: Path
    facts: Facts
    digests: Mapping[str, str]


class Cache:
    """The image cache of one state folder; any number of threads and processes may use it at once."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "images"

    def find(self, key: str) -> Entry | None:
        """The entry, or None when it is not there or not whole; by the lengths of its files, which costs nothing."""
        folder = self._place("entries", key)
        try:
            written = json.loads((folder / FACTS).read_bytes())
            files = written["files"]
            whole = all((folder / name).stat().st_size == one["size"] for name, one in files.items())
            digests = {name: str(one["digest"]) for name, one in files.items()}
            return Entry(key, folder, written["facts"], digests) if whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def obtain(self, key: str, build: Build, tell: Tell) -> Entry:
        """The entry, built if need be, and seen to be what was built. Of several callers one builds, the others wait.

        Whatever ``build`` raises is passed on, and nothing of its work is kept; want of space and the like is Refused,
        and so is an entry whose files were changed since: who changed them has to be asked, before it is used.
        """
        try:
            if entry := self.find(key):
                return _used(_unchanged(entry))
            with self._locked(key, tell):
                if entry := self.find(key):
                    return _used(_unchanged(entry))
                return self._make(key, build)
        except OSError as error:
            raise Refused(_trouble(self.folder, error)) from error

    def drop(self, key: str) -> bool:
        """Delete the entry; False when there was none. Waits for its builder."""
        if not self.folder.is_dir():
            return False
        with self._locked(key):
            there = self._place("entries", key).exists()
            self._clear(key)
        return there

    def prune(self, keep: Collection[str]) -> tuple[str, ...]:
        """Delete what is neither kept nor a part of something kept, and what killed builders left; the keys deleted."""
        dropped = tuple(key for key in self._unkept(keep) if self.drop(key))
        for key in self._keys("making"):
            with self._locked(key):
                shutil.rmtree(self._place("making", key), ignore_errors=True)
        return dropped

    def expire(self, keep: Collection[str], unused: float) -> tuple[str, ...]:
        """Delete what is neither kept nor a part of something kept, and was not asked for during so many seconds."""
        latest = time.time() - unused
        return tuple(key for key in self._unkept(keep) if self._asked_for(key) < latest and self.drop(key))

    def _unkept(self, keep: Collection[str]) -> list[str]:
        entries = [entry for key in keep if (entry := self.find(key))]
        kept = {*keep, *(part for entry in entries for part in entry.facts.get("parts", ()))}
        return [key for key in self._keys("entries") if key not in kept]

    def _asked_for(self, key: str) -> float:
        status = _lstat(self._place("entries", key) / FACTS)
        return status.st_mtime if status else 0.0

    def keys(self) -> list[str]:
        """Every entry there is, by name."""
        return self._keys("entries")

    def size(self) -> int:
        """Bytes on disk of everything in the cache; what several entries share counts once."""
        found = [_lstat(Path(folder) / name) for folder, _, names in os.walk(self.folder) for name in names]
        return sum({status.st_ino: status.st_blocks * 512 for status in found if status}.values())

    def _make(self, key: str, build: Build) -> Entry:
        making = self._place("making", key)
        shutil.rmtree(making, ignore_errors=True)
        private_dir(making.parent)
        private_dir(making)
        try:
            facts = build(making)
            _seal(making, facts)
            shutil.rmtree(self._place("entries", key), ignore_errors=True)
            making.rename(private_dir(self.folder / "entries") / key)
            _sync(self.folder / "entries")
        finally:
            shutil.rmtree(making, ignore_errors=True)
        entry = self.find(key)
        if entry is None:
            raise Refused(Problem(f"{self.folder}: the image that was just made is not there", hint="try again"))
        return entry

    def _clear(self, key: str) -> None:
        """Out of sight in one go (a rename), then out of being."""
        doomed = self._place("making", key)
        shutil.rmtree(doomed, ignore_errors=True)
        entry = self._place("entries", key)
        if entry.exists():
            private_dir(doomed.parent)
            entry.rename(doomed)
            shutil.rmtree(doomed)

    def _place(self, part: str, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise Refused(Problem(f'not the key of an image: "{key}"'))
        return self.folder / part / key

    def _keys(self, part: str) -> list[str]:
        folder = self.folder / part
        return sorted(filter(_KEY.fullmatch, os.listdir(folder))) if folder.is_dir() else []

    @contextmanager
    def _locked(self, key: str, tell: Tell | None = None) -> Iterator[None]:
        path = self._place("locks", key)
        private_dir(self.folder)
        private_dir(path.parent)
        handle = _lock(path, tell)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)


def _lock(path: Path, tell: Tell | None) -> int:
    """An exclusive lock on the file that *is* at ``path``: whoever had it before us may have unlinked it meanwhile."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if tell is not None:
                    tell("waiting for someone else who makes the same image")
                fcntl.flock(handle, fcntl.LOCK_EX)
            mine, there = os.fstat(handle), _lstat(path)
            if there is not None and there.st_ino == mine.st_ino:
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _used(entry: Entry) -> Entry:
    """Its facts bear the time at which it was last asked for."""
    os.utime(entry.folder / FACTS)
    return entry


def _unchanged(entry: Entry) -> Entry:
    changed = [name for name, digest in entry.digests.items() if checksums.of(entry.folder / name) != digest]
    if not changed:
        return entry
    raise Refused(
        Problem(
            f"the image in the cache is not what was put there: {', '.join(changed)} changed since",
            detail=str(entry.folder),
            hint="somebody wrote to it, or its disk fails; once that folder is removed, the next apply makes it anew",
        )
    )


def _seal(folder: Path, facts: Facts) -> None:
    """Everything private and on disk before its name says that it is complete."""
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o600)
        files[path.name] = {"size": path.stat().st_size, "digest": checksums.of(path)}
        _sync(path)
    write_private(folder / FACTS, json.dumps({"facts": facts, "files": files}, sort_keys=True).encode())
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _trouble(folder: Path, error: OSError) -> Problem:
    place = error.filename or folder
    return Problem(
        f"cannot keep an image: {place}: {error.strerror or error}",
        hint=f"make room or set the rights in {folder} (RECONCILER_STATE_DIR moves it)",
    )
