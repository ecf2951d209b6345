"""APPLY, the distribution's packages as a source of parts: downloaded by apt-get, taken apart, never installed.

Works without root. Where apt has no package lists (a fresh container image), it fetches its own into a private folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from reconciler.ports import Tell
from reconciler.problems import Problem, Refused, Unreachable

DEADLINE = 600
"""Seconds that one download may take."""

SILENCE = (
    "Could not resolve",
    "Could not connect",
    "Unable to connect",
    "Temporary failure",
    "timed out",
    "Failed to fetch",
)
OPTIONS = ("-q", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "-o", "Acquire::Retries=2")


class Packages:
    """A folder to download packages into; see ``workshop``."""

    def __init__(self, folder: Path, tell: Tell) -> None:
        self.folder = folder
        self._tell = tell
        self._lists: tuple[str, ...] = ()
        self._fetched: dict[str, Path] = {}

    def download(self, name: str) -> Path:
        """The newest ``.deb`` of that name. Raises Refused when apt knows none, Unreachable when nobody answers."""
        if name not in self._fetched:
            self._tell(f"downloading package {name}")
            self._fetched[name] = self._download(name)
        return self._fetched[name]

    def depends(self, name: str) -> list[str]:
        """The packages that ``name`` depends on directly, the first of alternatives."""
        answer = self._apt("apt-cache", "depends", "--important", name)
        if answer.returncode and self._update():
            answer = self._apt("apt-cache", "depends", "--important", name)
        words = [line.split() for line in answer.stdout.splitlines()]
        return [
            word[1] for word in words if len(word) == 2 and word[0] in ("Depends:", "PreDepends:") and word[1][0] != "<"
        ]

    def _download(self, name: str) -> Path:
        target = Path(tempfile.mkdtemp(dir=self.folder))
        answer = self._apt("apt-get", *OPTIONS, "download", name, folder=target)
        if answer.returncode and not _silent(answer.stderr) and self._update():
            answer = self._apt("apt-get", *OPTIONS, "download", name, folder=target)
        found = list(target.glob("*.deb"))
        if answer.returncode or len(found) != 1:
            raise _failure(f"package {name}: cannot be downloaded", answer.stderr)
        return found[0]

    def _update(self) -> bool:
        """Package lists of our own, once; False when we have them already."""
        if self._lists:
            return False
        self._tell("fetching package lists")
        lists = self.folder / "lists"
        (lists / "partial").mkdir(parents=True, mode=0o700)
        self._lists = (
            "-o",
            f"Dir::State::lists={lists}",
            "-o",
            "Dir::Cache::pkgcache=",
            "-o",
            "Dir::Cache::srcpkgcache=",
        )
        answer = self._apt("apt-get", *OPTIONS, "update")
        if answer.returncode:
            raise _failure("apt-get update: failed", answer.stderr)
        return True

    def _apt(self, command: str, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        sandbox = ("-o", "APT::Sandbox::User=root")  # its own user may not enter our private folder
        return run((command, *self._lists, *sandbox, *words), folder or self.folder)


@contextmanager
def workshop(folder: Path, tell: Tell) -> Iterator[Packages]:
    """A place below ``folder`` for packages while something is made of them; all gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="packages-", dir=folder))
    try:
        yield Packages(place, tell)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def contents(package: Path) -> Iterator[tarfile.TarFile]:
    """The files of a package, to be read in any order."""
    unpacked = package.with_suffix(".tar")
    with unpacked.open("wb") as target:
        command = ("dpkg-deb", "--fsys-tarfile", os.fspath(package))
        answer = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, timeout=DEADLINE)
    try:
        if answer.returncode:
            raise Refused(Problem(f"{package.name}: damaged", detail=answer.stderr.decode(errors="replace")))
        with tarfile.open(unpacked) as archive:
            yield archive
    finally:
        unpacked.unlink()


def read(package: Path, wanted: Sequence[str]) -> dict[str, bytes]:
    """The named files of a package, as far as it has them; names without a leading slash. Of a link within it, as most
    libraries are, what it leads to."""
    found = {}
    with contents(package) as archive:
        for entry in archive:
            name = entry.name.removeprefix("./")
            if name in wanted and (entry.isreg() or entry.issym()):
                with suppress(KeyError):  # it leads out of the package
                    found[name] = _content(archive, entry)
    return found


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    data = archive.extractfile(entry)
    if data is None:
        raise KeyError(entry.name)
    return data.read()


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the host. Raises Refused when it is missing, Unreachable when it does not end in time."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE,
        )
    except FileNotFoundError as error:
        hint = "recipes need a Debian or Ubuntu host; elsewhere name the parts yourself (kernel:, modules:)"
        raise Refused(Problem(f"{command[0]}: not installed", hint=hint)) from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(Problem(f"{command[0]}: no end in sight after {DEADLINE} s")) from error


def _silent(stderr: str) -> bool:
    return any(sign in stderr for sign in SILENCE)


def _failure(summary: str, stderr: str) -> Refused | Unreachable:
    if os.strerror(errno.ENOSPC) in stderr:  # apt says "Failed to fetch" of that, too
        hint = "make room below the state folder (RECONCILER_STATE_DIR moves it)"
        return Refused(Problem(summary, detail=stderr, hint=hint))
    if _silent(stderr):
        return Unreachable(
            Problem(summary, detail=stderr or None, hint="is the package mirror reachable? try apt-get update")
        )
    return Refused(Problem(summary, detail=stderr or None, hint="apt-get update, then try again"))
