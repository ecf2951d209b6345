"""WATCH: what files look like from outside. As long as they look the same, nothing has to be read again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

Entry = tuple[int, int, int, int]
"""Device, inode, size, time of the last change in nanoseconds; of a folder only which one it is."""
Looks = dict[str, Entry]

_MOST_FOLDERS = 64


def looks(paths: Iterable[str]) -> Looks:
    """Of files and of everything below folders. What is not there is not in it; links are looked through at the top."""
    return {path: entry for given in paths for path, entry in _entries(given)}


def look_of(path: str) -> Entry | None:
    """Of one file below a folder, as in ``looks``; None when it is not there, or is a folder."""
    try:
        about = os.lstat(path)
    except OSError:
        return None
    return None if stat.S_ISDIR(about.st_mode) else _entry(about)


def folders_to_watch(paths: Iterable[str]) -> dict[str, bool]:
    """Folder → whether everything below it matters. With each path also the folders that could exchange it:
    the one that it stands in, and those of links on the way to it."""
    found: dict[str, bool] = {}
    for path in paths:
        whole = os.path.abspath(path)
        if os.path.isdir(whole):
            found[os.path.realpath(whole)] = True
        for folder in _above(whole):
            found.setdefault(folder, False)
    return found


def identity(folder: str) -> tuple[int, int] | None:
    """Which folder it is by now; None when there is none."""
    try:
        about = os.stat(folder)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _above(path: str) -> Iterator[str]:
    """The nearest folder that is there, and wherever a link on the way stands or points."""
    parent = os.path.dirname(path)
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    yield os.path.realpath(parent)
    yield os.path.dirname(os.path.realpath(path)) if os.path.exists(path) else os.path.realpath(parent)
    at = path
    while at != os.path.dirname(at):
        if os.path.islink(at):
            yield os.path.realpath(os.path.dirname(at))
        at = os.path.dirname(at)


def _entry(about: os.stat_result) -> Entry:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _entries(path: str, depth: int = 0) -> Iterator[tuple[str, Entry]]:
    try:
        about = os.stat(path) if depth == 0 else os.lstat(path)
    except OSError:
        return
    if not stat.S_ISDIR(about.st_mode):
        yield path, _entry(about)
        return
    yield path, (about.st_dev, about.st_ino, 0, 0)
    if depth > _MOST_FOLDERS:
        return
    try:
        with os.scandir(path) as found:
            names = [entry.path for entry in found if not entry.name.startswith(".")]
    except OSError:
        return
    for name in names:
        yield from _entries(name, depth + 1)
