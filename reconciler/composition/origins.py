"""COMPOSE: where the parts of a patched document were written. Asked only when there is something to tell.

What was done is followed backwards: a path of the finished document becomes the path it had before each operation,
until one of them turns out to have brought it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from reconciler.manifest import Document

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was done. at, source: paths in the document as it was then (places in lists as numbers);
    by, place: where what it brought stands; value: what a merge was given."""

    name: str
    at: Path
    by: Document
    place: Path
    source: Path = ()
    value: Any = None


@dataclass(frozen=True, slots=True)
class Patched:
    """A document as it was read, and what was done to it since then."""

    read: Document
    done: tuple[Done, ...]

    def further(self, done: tuple[Done, ...]) -> Patched:
        """With more done to it."""
        return replace(self, done=(*self.done, *done))

    def trace(self, path: Path) -> tuple[Document, Path]:
        """The document, and the place in it, that the value at ``path`` comes from."""
        touched: tuple[Document, Path] | None = None
        for one in reversed(self.done):
            if one.name == "merge":
                taken, whole = _merged(one.value, path)
                if whole:
                    return one.by, (*one.place, *path)
                if taken and touched is None:
                    touched = one.by, (*one.place, *path)
            elif one.name in ("add", "replace") and path[: len(one.at)] == one.at:
                return one.by, (*one.place, *path[len(one.at) :])
            else:
                path = _before(one, path)
        return touched if touched is not None and not _is_there(self.read.data, path) else (self.read, path)


def _merged(given: Any, path: Path) -> tuple[bool, bool]:
    """Whether a merge patch names the path, and whether it brought all of it."""
    for part in path:
        if not isinstance(given, dict):
            return True, True
        if part not in given:
            return False, False
        given = given[part]
    return True, not isinstance(given, dict)


def _before(one: Done, path: Path) -> Path:
    """The path that the value had before."""
    if one.name in ("move", "copy") and path[: len(one.at)] == one.at:
        return (*one.source, *path[len(one.at) :])
    if one.name in ("add", "copy", "move"):
        path = _shifted(path, one.at, -1)
    if one.name == "remove":
        path = _shifted(path, one.at, 1)
    return _shifted(path, one.source, 1) if one.name == "move" else path


def _shifted(path: Path, at: Path, by: int) -> Path:
    """What stands behind a place in a list moves when something comes in there or goes."""
    end = len(at) - 1
    if not at or not isinstance(at[-1], int) or len(path) <= end or path[:end] != at[:end]:
        return path
    here = path[end]
    if not isinstance(here, int) or here < at[-1] + (by < 0):
        return path
    return (*path[:end], here + by, *path[end + 1 :])


def _is_there(data: Any, path: Path) -> bool:
    for part in path:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return False
    return True
