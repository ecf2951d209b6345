"""WATCH, names: the names of guests are brought up to date when something happened, and from time to time: a guest gets
another address without a word to anybody.

A thread of its own that looks for itself: what is looked at for the plan is never looked at for this. Whoever writes
them comes in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from reconciler.preparation import Wanted
from reconciler.problems import Problem

_FIRST, _MOST = 1.0, 30.0
"""Seconds between two looks: soon after something happened, while guests still ask for their addresses; then less and
less often."""
_GAP = 0.2
"""Seconds between two looks at least."""
_SHARE, _AT_ONCE = 20, 4
"""A look takes one part in so many of the time, however many guests there are; while things happen, of these."""


class NamesKept(Protocol):
    """What became of it; see ``cli.hosts.NamesKept``."""

    @property
    def place(self) -> str: ...
    @property
    def changed(self) -> bool: ...
    @property
    def problems(self) -> tuple[Problem, ...]: ...


Keep = Callable[[Wanted], NamesKept]
"""Looks at all guests, and writes their names where they are not so already."""


class Naming:
    """done: told of each look, from a thread of its own; broken: of our own bugs."""

    def __init__(self, keep: Keep, done: Callable[[NamesKept], None], broken: Callable[[BaseException], None]) -> None:
        self._keep, self._done, self._broken = keep, done, broken
        self._news = threading.Condition()
        self._wanted: Wanted | None = None
        self._fresh = self._ended = False
        self._thread: threading.Thread | None = None

    def follow(self, wanted: Wanted | None, news: bool) -> None:
        """What is wanted now, None: no names are to be kept; news: something may have happened. Waits for nothing."""
        with self._news:
            if wanted is not self._wanted or (news and wanted is not None):
                self._wanted, self._fresh = wanted, True
                self._news.notify_all()
        if wanted is not None and self._thread is None:
            self._thread = threading.Thread(target=self._go_on, name="watch-names", daemon=True)
            self._thread.start()

    def end(self, patience: float) -> None:
        """No further look; one at work gets that many seconds. One that is cut off leaves the names as they were."""
        with self._news:
            self._ended = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(patience)

    def _go_on(self) -> None:
        pause = took = 0.0
        while (found := self._next(max(_GAP, took * _AT_ONCE), max(pause, took * _SHARE))) is not None:
            wanted, fresh = found
            began = time.monotonic()
            try:
                kept = self._keep(wanted)
            except Exception as error:  # noqa: BLE001  a bug of ours: told, and tried again later
                self._broken(error)
                pause = _MOST
                continue
            took = time.monotonic() - began
            pause = _FIRST if fresh or kept.changed else min(_MOST, pause * 2)
            self._done(kept)

    def _next(self, gap: float, pause: float) -> tuple[Wanted, bool] | None:
        """What names are to be kept of now, and whether something happened: then after the gap, else after the pause.
        None: the end."""
        last = time.monotonic()
        with self._news:
            while not self._ended:
                due = last + (gap if self._fresh else pause)
                if self._wanted is None:
                    self._news.wait()
                elif time.monotonic() < due:
                    self._news.wait(due - time.monotonic())
                else:
                    fresh, self._fresh = self._fresh, False
                    return self._wanted, fresh
        return None
