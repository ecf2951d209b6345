"""WATCH: files that change → "look at them again". The only home of watchdog.

What events are about is looked at, and compared with what it looked like. But they come late, go missing when there are
too many, and stop altogether when a watched folder is renamed: so whatever is not plainly about single files means
"look at all of them", and a slow poll sees what no event told.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from reconciler.watch.settle import Settling
from reconciler.watch.tree import Entry, Looks, folders_to_watch, identity, look_of, looks

# It warns of lost events where our log stands: what we do about them is below.
logging.getLogger("watchdog").addHandler(logging.NullHandler())
logging.getLogger("watchdog").propagate = False

POLL = 60.0
"""Seconds between two looks at all files that no event asked for."""
POLL_ALONE = 1.0
"""The same while the kernel gives us no events."""
_FEW = 64
"""Files that are looked at one by one; when events name more of them, all are."""
_MANY = 1000
"""Events at a time after which all files are looked at, whatever these were about: the kernel keeps some ten thousand
for us and loses the rest without a word to whoever reads them through the library."""
_GLANCE = 5.0
"""Seconds between two looks whether the watched folders are the same still, and the watching thread alive."""
_OF_FILES = (
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileAttribEvent,
)
_TOLD: list[type[FileSystemEvent]] = [
    *_OF_FILES,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    DirAttribEvent,
]


@dataclass(frozen=True, slots=True)
class Changed:
    """What is not as it was: these files below watched folders, and no others; None: whatever it may be."""

    paths: frozenset[str] | None


class Files:
    """Says when files have changed and are whole. ``wake`` is called, from any thread, when ``due`` may be sooner."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.degraded = ""
        """Why only the poll works; empty when events do."""
        self._wake = wake
        self._handler = _Handler(self._hear)
        self._lock = threading.Lock()
        self._settling = Settling()
        self._paths: tuple[str, ...] = ()
        self._deep: list[str] = []
        self._watched: dict[str, tuple[bool, tuple[int, int] | None]] = {}
        self._observer: Any = None
        self._read: Looks = {}
        self._named: set[str] | None = set()  # what events were about; None: more than single files
        self._heard = 0
        self._taken = Changed(None)
        self._next_poll = 0.0
        self._next_glance = 0.0

    def watch(self, paths: Collection[str]) -> None:
        """From now on these files and folders matter; what they look like now is known."""
        self._paths = _outermost(paths)
        self._deep = [path for path in self._paths if os.path.isdir(path)]
        self._handler.follow(self._paths)
        self._read = looks(self._paths)
        self._taken = Changed(None)
        self._arm()

    def covers(self, path: str) -> bool:
        """Whether it is watched already: what is below a watched folder is, unless it is hidden."""
        whole = os.path.abspath(path)
        starts = (f"{one}{os.sep}" for one in self._deep)
        return any(whole.startswith(one) and f"{os.sep}." not in whole[len(one) - 1 :] for one in starts)

    def due(self) -> float:
        """When to call ``changed`` again, on the monotonic clock."""
        with self._lock:
            due = self._settling.due()
        slow = min(self._next_poll, self._next_glance)
        return slow if due is None else min(due, slow)

    def changed(self) -> Changed | None:
        """What is not as it was, once it is whole: read it now. None: nothing.

        Called when ``due`` has come; call ``watch`` afterwards when all of it has been read.
        """
        now = time.monotonic()
        with self._lock:
            take = self._settling.take(now)
            quiet = self._settling.due() is None
            named = self._named
            if take:
                self._named, self._heard = set(), 0
        if now >= self._next_glance:
            self._next_glance = now + _GLANCE
            if self._arm():
                self._told(None)  # whatever happened meanwhile was told to nobody
        polled = now >= self._next_poll
        if polled:
            self._next_poll = now + (POLL_ALONE if self.degraded else POLL)
        if not take and not (polled and quiet):
            return None
        if take and named is not None and len(named) <= _FEW:
            return self._of(named)
        found = looks(self._paths)
        if found == self._read:
            return None
        if not take:  # nobody told us: it may be half-written still
            self._told(None)
            return None
        self._read, self._taken = found, Changed(None)
        return self._taken

    def moved_on(self) -> bool:
        """Whether what ``changed`` named changed again since: what was read of it meanwhile is of no use."""
        paths = self._taken.paths
        if paths is None:
            same = looks(self._paths) == self._read
        else:
            same = all(look_of(path) == self._read.get(path) for path in paths)
            if not same:
                self._name(paths)
                for path in paths:
                    self._read[path] = _OTHERWISE
        if not same:
            self._told(None, doubt=paths is None)
        return not same

    def _of(self, paths: Collection[str]) -> Changed | None:
        """Those of these that are not as they were."""
        found = {path: look_of(path) for path in paths}
        differing = frozenset(path for path, look in found.items() if look != self._read.get(path))
        for path in differing:
            if (look := found[path]) is not None:
                self._read[path] = look
            else:
                self._read.pop(path, None)
        self._taken = Changed(differing)
        return self._taken if differing else None

    def close(self) -> None:
        """No more events."""
        self._stop()

    def _name(self, paths: Collection[str] | None) -> None:
        """An event was about these; None: about more than single files."""
        with self._lock:
            if paths is None or self._named is None:
                self._named = None
            else:
                self._named.update(paths)

    def _told(self, event: FileSystemEvent | None, doubt: bool = True) -> None:
        now = time.monotonic()
        if doubt:
            self._name(None)
        with self._lock:
            if isinstance(event, FileModifiedEvent):
                self._settling.written(str(event.src_path), now)
            elif isinstance(event, FileClosedEvent | FileDeletedEvent | FileMovedEvent):
                self._settling.closed(str(event.src_path), now)
            else:
                self._settling.changed(now)
        self._wake()

    def _hear(self, event: FileSystemEvent, about: Collection[str] | None) -> None:
        self._heard += 1
        self._name(about if self._heard <= _MANY else None)
        self._told(event, doubt=False)

    def _arm(self) -> bool:
        """Watch what is to be watched; anew when a folder is another one by now, or the watching thread has died.
        Whether it was anew."""
        wanted = {
            folder: (deep, identity(folder))
            for folder, deep in folders_to_watch(self._paths).items()
            if identity(folder) is not None
        }
        alive = self._observer is not None and self._observer.is_alive()
        if wanted == self._watched and (alive or self.degraded):
            return False
        self._stop()
        self._handler.follow(self._paths)
        self._watched = wanted
        observer = Observer()
        try:
            for folder, (deep, _) in wanted.items():
                observer.schedule(self._handler, folder, recursive=deep, event_filter=_TOLD)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                observer.start()
        except OSError as error:
            self.degraded = f"no file events ({error.strerror}): looking every {POLL_ALONE:g} s"
            self._next_poll = time.monotonic() + POLL_ALONE
            return True
        self.degraded = ""
        self._observer = observer
        self._next_poll = time.monotonic() + POLL
        return True

    def _stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            if observer.is_alive():
                observer.join(5)


def _outermost(paths: Collection[str]) -> tuple[str, ...]:
    """Without those that stand below another one: whoever looks at a folder sees them, but for hidden ones."""
    found: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths}, key=lambda path: path.replace(os.sep, "\0")):
        below = bool(found) and os.path.isdir(found[-1]) and path.startswith(f"{found[-1]}{os.sep}")
        if not below or f"{os.sep}." in path[len(found[-1]) :]:
            found.append(path)
    return tuple(found)


_OTHERWISE: Entry = (0, 0, -1, 0)
"""What nothing looks like."""


class _Handler(FileSystemEventHandler):
    """Events of the paths that matter, and of nothing beside them; with each the files that it is about, as far as it
    is plainly about files below a watched folder."""

    def __init__(self, tell: Callable[[FileSystemEvent, Collection[str] | None], None]) -> None:
        self._tell = tell
        self.follow(())

    def follow(self, paths: Collection[str]) -> None:
        """These matter from now on, also to whoever is listening already."""
        self._names = frozenset(os.path.basename(path) for path in paths)
        self._own = frozenset(paths)
        self._deep = {f"{os.path.realpath(path)}{os.sep}": f"{path}{os.sep}" for path in paths if os.path.isdir(path)}

    def on_any_event(self, event: FileSystemEvent) -> None:
        deep, paths = self._deep, [str(path) for path in (event.src_path, event.dest_path) if path]
        if any(path.startswith(tuple(deep)) or self._matters(path) for path in paths):
            self._tell(event, self._about(paths, deep) if isinstance(event, _OF_FILES) else None)

    def _about(self, paths: Collection[str], deep: Mapping[str, str]) -> set[str] | None:
        """The files by the names that they are read by, hidden ones left out; None: not only such files."""
        found: set[str] = set()
        for path in paths:
            start = next((one for one in deep if path.startswith(one)), None)
            if start is None:
                if self._matters(path):
                    return None
                continue
            below = path[len(start) :]
            own = deep[start] + below
            if own in self._own:
                return None
            if f"{os.sep}." not in f"{os.sep}{below}":
                found.add(own)
        return found

    def _matters(self, path: str) -> bool:
        """One of the paths themselves, or a link on the way to one (``..data`` of a mounted config map)."""
        name = os.path.basename(path)
        return name in self._names or name.startswith("..") or os.path.islink(path)
