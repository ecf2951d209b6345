"""WATCH: files that change → "look at them again". The only home of watchdog.

Any event means no more than "rescan": events come late, go missing when there are too many, and stop altogether when
a watched folder is renamed. So we compare what the files look like, and a slow poll sees what no event told.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Collection
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
from reconciler.watch.tree import Signature, folders_to_watch, identity, signature

POLL = 60.0
"""Seconds between two looks at all files that no event asked for."""
POLL_ALONE = 1.0
"""The same while the kernel gives us no events."""
_GLANCE = 5.0
"""Seconds between two looks whether the watched folders are the same still, and the watching thread alive."""
_TOLD: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    DirAttribEvent,
]


class Files:
    """Says when files have changed and are whole. ``wake`` is called, from any thread, when ``due`` may be sooner."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.degraded = ""
        """Why only the poll works; empty when events do."""
        self._wake = wake
        self._lock = threading.Lock()
        self._settling = Settling()
        self._paths: tuple[str, ...] = ()
        self._watched: dict[str, tuple[bool, tuple[int, int] | None]] = {}
        self._observer: Any = None
        self._read: Signature = frozenset()
        self._next_poll = 0.0
        self._next_glance = 0.0

    def watch(self, paths: Collection[str]) -> None:
        """From now on these files and folders matter; what they look like now is known."""
        self._paths = _outermost(paths)
        self._read = signature(self._paths)
        self._arm()

    def due(self) -> float:
        """When to call ``changed`` again, on the monotonic clock."""
        with self._lock:
            due = self._settling.due()
        slow = min(self._next_poll, self._next_glance)
        return slow if due is None else min(due, slow)

    def changed(self) -> bool:
        """Whether the files are another set than the one last known, and whole: read them now.

        Called when ``due`` has come; then call ``watch`` with what has been read.
        """
        now = time.monotonic()
        with self._lock:
            take = self._settling.take(now)
            quiet = self._settling.due() is None
        if now >= self._next_glance:
            self._next_glance = now + _GLANCE
            if self._arm():
                self._told(None)  # whatever happened meanwhile was told to nobody
        polled = now >= self._next_poll
        if polled:
            self._next_poll = now + (POLL_ALONE if self.degraded else POLL)
        if not take and not (polled and quiet):
            return False
        found = signature(self._paths)
        if found == self._read:
            return False
        if not take:  # nobody told us: it may be half-written still
            self._told(None)
            return False
        self._read = found
        return True

    def moved_on(self) -> bool:
        """Whether the files changed again since ``changed`` said so: what was read meanwhile is of no use."""
        if signature(self._paths) == self._read:
            return False
        self._told(None)
        return True

    def close(self) -> None:
        """No more events."""
        self._stop()

    def _told(self, event: FileSystemEvent | None) -> None:
        now = time.monotonic()
        with self._lock:
            if isinstance(event, FileModifiedEvent):
                self._settling.written(str(event.src_path), now)
            elif isinstance(event, FileClosedEvent | FileDeletedEvent | FileMovedEvent):
                self._settling.closed(str(event.src_path), now)
            else:
                self._settling.changed(now)
        self._wake()

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
        self._watched = wanted
        observer = Observer()
        handler = _Handler(self._told, self._paths)
        try:
            for folder, (deep, _) in wanted.items():
                observer.schedule(handler, folder, recursive=deep, event_filter=_TOLD)
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


class _Handler(FileSystemEventHandler):
    """Events of the paths that matter, and of nothing beside them."""

    def __init__(self, tell: Callable[[FileSystemEvent], None], paths: Collection[str]) -> None:
        self._tell = tell
        self._names = frozenset(os.path.basename(path) for path in paths)
        self._deep = tuple(f"{os.path.realpath(path)}{os.sep}" for path in paths if os.path.isdir(path))

    def on_any_event(self, event: FileSystemEvent) -> None:
        for path in (str(event.src_path), str(event.dest_path or "")):
            if path and (path.startswith(self._deep) or self._matters(path)):
                self._tell(event)
                return

    def _matters(self, path: str) -> bool:
        """One of the paths themselves, or a link on the way to one (``..data`` of a mounted config map)."""
        name = os.path.basename(path)
        return name in self._names or name.startswith("..") or os.path.islink(path)
