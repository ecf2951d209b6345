"""Behind ``cp``: files and folders between this host and a guest. What a guest says is not believed.

On this host nothing is ever opened by a path that a guest had a say in: each name stands alone, is looked at first,
and is created in a folder that is held open. No link is followed, neither here nor in the guest.
"""

from __future__ import annotations

import os
import posixpath
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from reconciler.ports import FILE, FOLDER, LINK, Entry, GuestFiles
from reconciler.problems import Problem, Refused

Say = Callable[[str], None]

_DEEPEST = 128
_PERMISSIONS = 0o777
"""Of a guest's mode: a program that runs as its owner does so in the guest, and not here."""
_INNER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def pull(files: GuestFiles, path: str, to: Path, say: Say) -> None:
    """From the guest: into ``to`` when that is a folder, else as ``to``. say: told what is left out."""
    entry = _there(files, path)
    if to.is_dir():
        to = to / _checked(PurePosixPath(path).name or "root")
    with _opened(to.parent) as parent:
        _pull(files, path, entry, parent, to.name, 0, say)


def push(files: GuestFiles, source: Path, path: str, say: Say) -> None:
    """To the guest: into ``path`` when that is a folder, else as ``path``. It belongs to whom the folder belongs to."""
    there = files.entry(path)
    if there is not None and there.type == FOLDER:
        path = f"{path.rstrip('/')}/{_checked(Path(os.path.abspath(source)).name or 'root')}"
    folder = str(PurePosixPath(path).parent)
    owner = files.entry(folder)
    if owner is None or owner.type != FOLDER:
        raise Refused(Problem("there is no such folder in the guest", subject=folder))
    with _opened(source.parent) as parent:
        _push(files, parent, source.name or ".", path, owner, 0, say)


def push_stream(files: GuestFiles, path: str) -> None:
    """Standard input → a file in the guest."""
    _check_file(files, path)
    owner = files.entry(str(PurePosixPath(path).parent))
    if owner is None or owner.type != FOLDER:
        raise Refused(Problem("there is no such folder in the guest", subject=str(PurePosixPath(path).parent)))
    with os.fdopen(os.dup(0), "rb") as data:
        files.write(path, data, 0o644, owner.uid, owner.gid)


def pull_stream(files: GuestFiles, path: str) -> None:
    """A file in the guest → standard output."""
    if _there(files, path).type != FILE:
        raise Refused(Problem("only a file can go to standard output", subject=path))
    with os.fdopen(os.dup(1), "wb") as out:
        files.stream(path, _sink(out))


def _sink(file: BinaryIO) -> Callable[[bytes], None]:
    def sink(data: bytes) -> None:
        file.write(data)

    return sink


def _there(files: GuestFiles, path: str) -> Entry:
    entry = files.entry(path)
    if entry is None:
        raise Refused(Problem("there is no such file in the guest", subject=path))
    if entry.type == LINK:
        hint = f"it leads to {files.target(path)}: name that"
        raise Refused(Problem("it is a link, and links are not followed", subject=path, hint=hint))
    return entry


def _checked(name: str) -> str:
    """One name, as the guest says it: it stands for something in its folder, or the guest means harm."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Refused(Problem(f"the guest says that a file is called {name!r}: nothing more is copied from it"))
    return name


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The folder that somebody on this host named, links and all."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _pull(files: GuestFiles, path: str, entry: Entry, parent: int, name: str, depth: int, say: Say) -> None:
    if entry.type == FOLDER:
        _check_depth(depth, path)
        with _made(parent, name, entry.mode & _PERMISSIONS) as inner:
            for one in map(_checked, sorted(files.names(path))):
                below = f"{path.rstrip('/')}/{one}"
                if (found := files.entry(below)) is not None:
                    _pull(files, below, found, inner, one, depth + 1, say)
    elif entry.type == FILE:
        _receive(files, path, entry.mode & _PERMISSIONS, parent, name)
    elif entry.type == LINK and _stays(target := _relative(files.target(path), path), depth):
        _replace_link(parent, name, target)
    else:
        say(f"{path}: left out: {'a link that leads out of what is copied' if entry.type == LINK else 'no plain file'}")


@contextmanager
def _made(parent: int, name: str, mode: int) -> Iterator[int]:
    """A folder, made if it is not there; its mode comes last, so that it can be filled in any case."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        mode = -1
    handle = os.open(name, _INNER, dir_fd=parent)
    try:
        yield handle
        if mode >= 0:
            os.fchmod(handle, mode)
    finally:
        os.close(handle)


def _receive(files: GuestFiles, path: str, mode: int, parent: int, name: str) -> None:
    """Whole or not at all, and never through what stands there under that name."""
    beside = f".{secrets.token_hex(8)}.reconciler"
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        with os.fdopen(handle, "wb") as file:
            files.stream(path, _sink(file))
            file.flush()
            os.fchmod(file.fileno(), mode)
        os.replace(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(beside, dir_fd=parent)
        raise


def _replace_link(parent: int, name: str, target: str) -> None:
    beside = f".{secrets.token_hex(8)}.reconciler"
    os.symlink(target, beside, dir_fd=parent)
    try:
        os.replace(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(beside, dir_fd=parent)
        raise


def _relative(target: str, path: str) -> str:
    """LXD says of every link where it leads in the guest as a whole; here it is to lead to the same in the copy."""
    return posixpath.relpath(target, posixpath.dirname(path)) if target.startswith("/") else target


def _stays(target: str, depth: int) -> bool:
    """Whether a link that stands that many folders down leads to something that is copied with it.

    Up only at the beginning, where the way is known: behind another link ``..`` may be anywhere.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return not target.startswith("/") and "\0" not in target and ".." not in parts[up:] and up < depth


def _check_depth(depth: int, path: str) -> None:
    if depth >= _DEEPEST:
        raise Refused(Problem(f"folders lie more than {_DEEPEST} deep in one another", subject=path[:200]))


def _push(files: GuestFiles, parent: int, name: str, path: str, owner: Entry, depth: int, say: Say) -> None:
    seen = os.stat(name, dir_fd=parent, follow_symlinks=not depth)  # what was named itself may be a link of our user's
    mode = stat.S_IMODE(seen.st_mode) & _PERMISSIONS
    if stat.S_ISDIR(seen.st_mode):
        _check_depth(depth, path)
        if (there := files.entry(path)) is None:
            files.folder(path, mode, owner.uid, owner.gid)
        elif there.type != FOLDER:
            raise Refused(Problem("it is there in the guest, and is no folder", subject=path))
        handle = os.open(name, _INNER if depth else _INNER & ~os.O_NOFOLLOW, dir_fd=parent)
        try:
            for one in sorted(os.listdir(handle)):
                _push(files, handle, one, f"{path.rstrip('/')}/{one}", owner, depth + 1, say)
        finally:
            os.close(handle)
    elif stat.S_ISREG(seen.st_mode):
        _send(files, parent, name, path, mode, owner, inner=depth > 0)
    elif stat.S_ISLNK(seen.st_mode) and _stays(target := os.readlink(name, dir_fd=parent), depth):
        files.remove(path)
        files.link(path, target)
    else:
        link = stat.S_ISLNK(seen.st_mode)
        say(f"{name}: left out: {'a link that leads out of what is copied' if link else 'no plain file'}")


def _send(files: GuestFiles, parent: int, name: str, path: str, mode: int, owner: Entry, inner: bool) -> None:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if inner else 0)
    with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as data:
        there = _check_file(files, path)
        if there is not None and there.mode != mode:
            files.remove(path)  # the mode of what is overwritten would stay
        keeps = there if there is not None else owner
        files.write(path, data, mode, keeps.uid, keeps.gid)


def _check_file(files: GuestFiles, path: str) -> Entry | None:
    """What would be overwritten; Refused unless it is a file: the guest's people may have put a link there."""
    there = files.entry(path)
    if there is not None and there.type != FILE:
        raise Refused(Problem(f"it is there in the guest, and is a {there.type}: not overwritten", subject=path))
    return there
