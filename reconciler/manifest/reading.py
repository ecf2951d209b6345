"""LOAD, first step: which files, and their bytes, opened so that nobody can slip us another file or make us wait.

Whoever can write a manifest owns what is applied: files and folders that others can write are refused, and so are
links, pipes, sockets and devices. Every problem is noted; nothing is left out in silence.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reconciler.manifest.trust import distrust, distrust_folders, look_anew
from reconciler.problems import ManifestError, Mark, Problem

MAX_BYTES = 1 << 20
MAX_PAYLOAD = 16 << 20
ENVIRONMENT = "environment.yaml"
STDIN = "-"
ENDINGS = (".yaml", ".yml")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_FOLDERS = 64
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """One file as it was read. file: as people are shown it; ``-`` is standard input."""

    file: str
    data: bytes


@dataclass(slots=True)
class Reader:
    """One reading of files and folders: what was found so far."""

    sources: list[Source] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def read(self, path: str, stdin: bytes | None = None) -> None:
        """A file, a folder, or ``-``."""
        if path == STDIN:
            self._standard_input(stdin)
        elif "\0" in path or not path.isprintable():
            self._problem(ascii(path), "not a path that can be shown", "rename it")
        elif os.path.isdir(path):
            self._top_folder(path)
        else:
            self._file(path)

    def _standard_input(self, data: bytes | None) -> None:
        if data is None or not data.strip():
            self._problem(STDIN, "nothing came through standard input", "pipe a manifest in, or name a file")
        elif len(data) > MAX_BYTES:
            self._problem(STDIN, *_too_big(len(data), MAX_BYTES))
        else:
            self.sources.append(Source(STDIN, data))

    def _file(self, path: str) -> None:
        folder = os.path.dirname(path)
        if not os.path.lexists(path):
            self.problems.append(Problem(f"{path}: there is no such file or folder", hint="check the path"))
            return
        if (why := distrust_folders(folder or ".")) is not None:
            self._problem(path, *why)
            return
        try:
            about = os.lstat(path)
            if not stat.S_ISREG(about.st_mode):  # before opening: merely opening a device can do something
                self._problem(path, *_not_regular(about))
                return
            self._take(path, path, None)
        except OSError as error:
            self._problem(path, *_failure(error))

    def _top_folder(self, path: str) -> None:
        before = len(self.sources) + len(self.problems)
        if (why := distrust_folders(path)) is not None:
            self._problem(path, *why)
            return
        self._folder(path)
        if len(self.sources) + len(self.problems) == before:
            hint = "an empty folder never means that nothing is wanted; manifests end in .yaml or .yml"
            self._problem(path, "there is no manifest in this folder", hint)

    def _folder(self, top: str) -> None:
        """Everything below, in the order of names; a folder's environment.yaml stands for all of it."""
        pending = [(top, 0)]
        while pending:
            folder, depth = pending.pop()
            if depth > _MAX_FOLDERS:
                self._problem(folder, f"more than {_MAX_FOLDERS} folders deep", "keep manifests in fewer levels")
                continue
            try:
                below = self._one_folder(folder, depth > 0)
            except OSError as error:
                self._problem(folder, *_failure(error))
                continue
            pending += [(os.path.join(folder, name), depth + 1) for name in reversed(below)]

    def _one_folder(self, folder: str, inner: bool) -> list[str]:
        """Take the folder's files; the names of the folders in it come back."""
        handle = os.open(folder, _OPEN_FOLDER | (os.O_NOFOLLOW if inner else 0))
        try:
            if (why := distrust(os.fstat(handle))) is not None:
                self._problem(folder, *why)
                return []
            files, folders = _listing(handle)
            if ENVIRONMENT in files:
                files, folders = [ENVIRONMENT], []
            begin = os.path.join(folder, "")
            for name in files:
                try:
                    self._take(begin + name, name, handle)
                except OSError as error:
                    self._problem(begin + name, *_failure(error))
            return folders
        finally:
            os.close(handle)

    def one_of_folder(self, folder: str, shown: str, name: str) -> None:
        """One file of it, as if all of it were read. Raises OSError."""
        handle = os.open(folder, _OPEN_FOLDER)
        try:
            if (why := distrust(os.fstat(handle)) or distrust_folders(folder)) is not None:
                self._problem(folder, *why)
            else:
                self._take(shown, name, handle)
        finally:
            os.close(handle)

    def _take(self, shown: str, name: str, folder: int | None) -> None:
        """Open, check and read one file. Raises OSError."""
        handle = os.open(name, _OPEN, dir_fd=folder)
        try:
            about = os.fstat(handle)
            if (why := _refusal(shown, about, MAX_BYTES)) is not None:
                self._problem(shown, *why)
                return
            data = os.read(handle, about.st_size + 1)
        finally:
            os.close(handle)
        if len(data) != about.st_size:
            self._problem(shown, "the file changed while it was read", "try again once it is written")
            return
        self.sources.append(Source(shown, data))

    def _problem(self, file: str, summary: str, hint: str) -> None:
        shown = file if file.isprintable() else ascii(file)
        self.problems.append(Problem(summary, Mark(shown, 1, 1), hint=hint))


def read_sources(paths: Sequence[str], stdin: bytes | None = None) -> tuple[list[Source], list[Problem]]:
    """All files behind the paths, each once, and everything that is wrong with them."""
    reader = Reader()
    look_anew()
    for path in paths:
        reader.read(path, stdin)
    if not paths:
        reader.problems.append(Problem("no manifest was named", hint="name a file, a folder, or - for standard input"))
    if len(paths) > 1:
        return list(_each_once(reader.sources)), reader.problems
    return reader.sources, reader.problems


def read_again(file: str) -> Source | None:
    """One file of a folder that was read before; None when it is gone. Raises ManifestError."""
    reader = Reader()
    look_anew()
    folder, name = os.path.split(file)
    try:
        reader.one_of_folder(folder or ".", file, name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(Problem(f"{file}: {_words(error)}", hint=_failure(error)[1])) from None
    if reader.problems:
        raise ManifestError(reader.problems)
    return reader.sources[0]


def is_manifest(name: str) -> bool:
    """Whether a folder's file of that name is read."""
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def read_file(path: str, limit: int) -> bytes:
    """One trusted file, whole. Raises ManifestError; FileNotFoundError when it is not there."""
    try:
        handle = os.open(path, _OPEN)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ManifestError(Problem(f"{path}: {_words(error)}", hint=_failure(error)[1])) from None
    try:
        about = os.fstat(handle)
        why = distrust_folders(os.path.dirname(path) or ".") or _refusal(path, about, limit)
        if why is not None:
            raise ManifestError(Problem(why[0], Mark(path, 1, 1), hint=why[1]))
        return os.read(handle, limit + 1)
    finally:
        os.close(handle)


def _each_once(sources: Sequence[Source]) -> Iterator[Source]:
    seen: set[str] = set()
    for source in sources:
        place = os.path.abspath(source.file) if source.file != STDIN else STDIN
        if place not in seen:
            seen.add(place)
            yield source


def _listing(folder: int) -> tuple[list[str], list[str]]:
    """Names of manifests and of folders. Links count as manifests or folders by name, to be refused by name."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _leads_to_folder(entry)):
                folders.append(name)
            elif is_manifest(name):
                files.append(name)
    return sorted(files), sorted(folders)


def _leads_to_folder(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_dir()
    except OSError:  # it leads to itself
        return False


Why = tuple[str, str]


def _refusal(shown: str, about: os.stat_result, limit: int) -> Why | None:
    if not stat.S_ISREG(about.st_mode):
        return _not_regular(about)
    if (why := distrust(about)) is not None:
        return why
    if about.st_size > limit:
        return _too_big(about.st_size, limit)
    if not shown.isprintable():
        return "the file's name cannot be shown", "rename it"
    return None


def _not_regular(about: os.stat_result) -> Why:
    what = next((words for test, words in _KINDS if test(about.st_mode)), "something else")
    return f"expected a regular file, got {what}", "copy the contents into a file, or pipe them in and name -"


def _too_big(size: int, limit: int) -> Why:
    return f"{size} bytes are more than the {limit >> 20} MiB that a file may have", "split it into several files"


def _failure(error: OSError | ValueError) -> Why:
    if not isinstance(error, OSError):
        return str(error), "check the path"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "expected a regular file or folder, got a symbolic link", "name what it points at"
    if error.errno == errno.ENXIO:
        return "expected a regular file, got a socket or device", "name a file"
    if error.errno == errno.ENOENT:
        return "vanished while it was read", "try again; nothing was done"
    return f"cannot be read: {error.strerror}", "check its owner and mode"


def _words(error: OSError | ValueError) -> str:
    return _failure(error)[0]
