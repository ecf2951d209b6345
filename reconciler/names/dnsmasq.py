"""NAMES, by dnsmasq: a folder of ours that it watches, and the lines of its configuration that tell it to, once.

What is written into that folder is answered at once, without a restart and without a signal; what is taken out is not
answered any more (since dnsmasq 2.88).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.names.block import maintain, refused, replace
from reconciler.names.lines import DOMAIN, Names
from reconciler.problems import Problem, Refused

FIRST = (2, 88)
"""The first version that forgets what was taken out of such a folder."""
_FOLDER = re.compile(r"/[A-Za-z0-9/_.+-]*")
_CONFIGURATION = Path("/etc/dnsmasq.conf")


@dataclass(frozen=True, slots=True)
class Entry:
    """Ours in a folder of configuration that a dnsmasq reads, such as /etc/dnsmasq.d."""

    folder: Path

    @property
    def line(self) -> Path:
        """Our file of configuration. dnsmasq reads it only when it starts."""
        return self.folder / "reconciler.conf"

    @property
    def watched(self) -> Path:
        """The folder that dnsmasq is told to watch; it stands where its configuration may be read by it, whatever
        confines it."""
        return self.folder / "reconciler.names"

    @property
    def file(self) -> Path:
        """The names."""
        return self.watched / "hosts"

    def is_there(self) -> bool:
        """Whether it was set up."""
        return self.line.exists()

    def keep(self, found: Names, whole: bool) -> bool:
        """Set it up where it is not, bring the names up to date; whether anything had to be written. Raises Refused.

        The names come first: a dnsmasq that starts meanwhile finds the folder that it is told of.
        """
        _check(self.folder)
        try:
            self.watched.mkdir(mode=0o755, exist_ok=True)
            if self.watched.stat().st_mode & 0o777 != 0o755:
                self.watched.chmod(0o755)  # dnsmasq is not root when it reads it
            _check(self.watched)
            changed = maintain(self.file, found, whole)
            if not self.line.exists() or self.line.read_text(encoding="utf-8", errors="replace") != self._lines():
                replace(self.line, self._lines().encode())
                changed = True
        except OSError as error:
            raise refused(self.folder, error) from error
        return changed

    def remove(self) -> bool:
        """Take it away, the line first; whether there was anything. Foreign files stay. Raises Refused."""
        there = self.line.exists() or self.watched.exists()
        try:
            self.line.unlink(missing_ok=True)
            if self.watched.exists():
                for left in [self.file, *self.watched.glob(".hosts.*.reconciler")]:
                    left.unlink(missing_ok=True)
                with suppress(OSError):  # what somebody else has put there stays, and so the folder
                    self.watched.rmdir()
        except OSError as error:
            raise refused(self.folder, error) from error
        return there

    def is_heard(self) -> bool:
        """Whether a dnsmasq that runs watches our folder: it was started since our line is there. By root alone, or by
        whom dnsmasq runs as; False where that cannot be seen."""
        try:
            mark = f" ino:{self.watched.stat().st_ino:x} "
        except OSError:
            return False
        return any(mark in line for process in _running() for line in _watches(process))

    def is_read(self) -> bool:
        """Whether a dnsmasq that runs reads the files of this folder when it starts."""
        return any(self.folder.resolve() in _folders(_words(process)) for process in _running())

    def _lines(self) -> str:
        return (
            "# Kept by reconciler; `reconciler hosts --remove` takes it away.\n"
            f"hostsdir={self.watched}\n"
            f"local=/{DOMAIN}/\n"
        )


def version() -> tuple[int, int] | None:
    """Of the dnsmasq that is installed; None where none is, or where it cannot tell."""
    try:
        done = subprocess.run(["dnsmasq", "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"Dnsmasq version (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _check(folder: Path) -> None:
    """Nobody else may write there: they could have us write wherever they like."""
    if not _FOLDER.fullmatch(str(folder)):
        raise Refused(Problem("dnsmasq could not be told of a folder that is called so", subject=str(folder)))
    try:
        about = folder.stat()
    except OSError as error:
        raise refused(folder, error) from error
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o022:
        hint = "it has to be root's, or our own, and writable by nobody else"
        raise Refused(Problem("the folder may be changed by others", subject=str(folder), hint=hint))


def _running() -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_bytes() == b"dnsmasq\n":
                yield process


def _words(process: Path) -> list[str]:
    with suppress(OSError):
        return os.fsdecode((process / "cmdline").read_bytes()).rstrip("\0").split("\0")
    return []


def _watches(process: Path) -> Iterator[str]:
    """What it has the kernel watch, as the kernel tells it."""
    with suppress(OSError):
        for handle in (process / "fdinfo").iterdir():
            with suppress(OSError):
                yield from (line for line in handle.read_text().splitlines() if line.startswith("inotify "))


def _folders(words: Sequence[str]) -> set[Path]:
    """The folders of configuration of a dnsmasq that was started with these words."""
    files = _values(words, "-C", "--conf-file") or [str(_CONFIGURATION)]
    named = _values(words, "-7", "--conf-dir")
    for file in files:
        with suppress(OSError):
            lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
            pairs = [line.partition("#")[0].partition("=") for line in lines]
            named += [value.strip() for key, _, value in pairs if key.strip() == "conf-dir"]
    return {Path(name.partition(",")[0]).resolve() for name in named if name}


def _values(words: Sequence[str], short: str, long: str) -> list[str]:
    """Of an option: ``-C X``, ``-CX``, ``--conf-file X``, ``--conf-file=X``."""
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in (short, long):
            found.append(following)
        elif word.startswith(f"{long}="):
            found.append(word.partition("=")[2])
        elif word.startswith(short):
            found.append(word.removeprefix(short))
    return found
