"""WATCH: the backends that are open right now, and a thread for each that tells when something of it has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack

from reconciler.model import Json, ResourceId
from reconciler.ports import Backend, Watchable
from reconciler.preparation import Wanted
from reconciler.watch.inbox import Flag

Opener = Callable[[Wanted], AbstractContextManager[dict[str, Backend]]]
"""Opens every backend that a wanted set needs; the command line knows how."""

Told = Callable[[str, Collection[ResourceId] | None], None]
"""(backend, what may have changed there)"""

_PATIENCE = 5.0
_EARS = 0.25
"""Seconds that backends get until they listen: what is looked at from then on need not be looked at once more."""
_AGAIN = 5.0
"""Seconds after which a watching thread that ended of a bug is started again."""


class Places:
    """Opened for one wanted set; opened anew when another one needs others."""

    def __init__(self, opener: Opener, told: Told, broken: Callable[[str, BaseException], None]) -> None:
        self.backends: Mapping[str, Backend] = {}
        self._opener = opener
        self._told = told
        self._broken = broken
        self._stack = ExitStack()
        self._stop: Flag | None = None
        self._threads: list[threading.Thread] = []
        self._needs: Json = None
        self._for: Wanted | None = None
        self._deaf: set[str] = set()
        self._patience = 0.0

    def fits(self, wanted: Wanted, moved: Collection[ResourceId] | None = None) -> bool:
        """Whether what is open serves this set. moved: what is otherwise in it than in the one that was asked about
        last, where that is known."""
        if wanted is self._for:
            return True
        if moved is None or self._for is None or not _needs_the_same(self._for, wanted, moved):
            self._for = wanted if self._needs == _needs(wanted) else None
        else:
            self._for = wanted
        return self._for is wanted

    def awaited(self, now: float) -> float | None:
        """Until when (monotonic) it is better to begin no look, because not all that were just opened listen yet."""
        if self._deaf and now >= self._patience:
            self._deaf.clear()
        return self._patience if self._deaf else None

    def listens(self, name: str) -> bool:
        """This backend has told for the first time; whether that was awaited."""
        awaited = name in self._deaf
        self._deaf.discard(name)
        return awaited

    def open(self, wanted: Wanted) -> None:
        """Close what is open, and open what this set needs. Nothing may be at work."""
        self.close()
        self.backends = self._stack.enter_context(self._opener(wanted))
        self._needs, self._for = _needs(wanted), wanted
        self._stop = Flag()
        for name, backend in self.backends.items():
            if isinstance(backend, Watchable):
                thread = threading.Thread(
                    target=self._listen, args=(name, backend, self._stop), name=f"watch-{name}", daemon=True
                )
                thread.start()
                self._threads.append(thread)
                self._deaf |= {name} if backend.announces else set()
        self._patience = time.monotonic() + _EARS

    def close(self) -> None:
        """Let go of everything; guests stay as they are."""
        if self._stop is not None:
            self._stop.set()
            for thread in self._threads:
                thread.join(_PATIENCE)
            if not any(thread.is_alive() for thread in self._threads):
                self._stop.close()
        self._threads, self._stop, self._needs, self._for, self.backends = [], None, None, None, {}
        self._deaf = set()
        self._stack.close()
        self._stack = ExitStack()

    def _listen(self, name: str, backend: Watchable, stop: Flag) -> None:
        while not stop.is_set():
            try:
                backend.watch(lambda ids: self._told(name, ids), stop)
            except Exception as error:  # noqa: BLE001  a bug; the others go on, and the slow resync sees what this misses
                self._broken(name, error)
                stop.wait(_AGAIN)


def _needs_the_same(before: Wanted, after: Wanted, moved: Collection[ResourceId]) -> bool:
    """Whether that is plain, without going through all of it."""
    if (before.environment, before.prune) != (after.environment, after.prune):
        return False
    pairs = [(before.desired.get(id), after.desired.get(id)) for id in moved]
    return all(
        old is not None and new is not None and old.backend == new.backend and new.id.kind != "Host"
        for old, new in pairs
    )


def _needs(wanted: Wanted) -> Json:
    """What decides which backends are opened, and how."""
    names = sorted({want.backend for want in wanted.desired.values()})
    hosts = {id.name: want.spec for id, want in wanted.desired.items() if id.kind == "Host"}
    return [wanted.environment, wanted.prune, names, hosts]
