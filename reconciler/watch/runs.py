"""WATCH: what was done becomes history, once a fresh look has proved it; and figures for whoever counts."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.model import Outcome, ResourceId, Result, Run
from reconciler.record import Events, History, rows_of
from reconciler.watch.journal import Event
from reconciler.watch.passes import Island

Report = Callable[[BaseException], None]
"""Is told of our own bugs."""


@dataclass(slots=True)
class _Open:
    """A run whose proof is still to come, for these. at: when it was carried out, in seconds since the epoch."""

    run: Run
    left: set[ResourceId]
    at: float


class Runs:
    """Used by one thread. That the history cannot be written takes nothing back from what was done."""

    def __init__(self, state: Path, report: Report) -> None:
        self.report = report
        self.trouble = ""
        self._state = state
        self._open: list[_Open] = []

    def carried_out(self, island: Island, outcomes: list[Outcome]) -> None:
        """Steps have come to their end."""
        for one in [one for one in self._open if one.left & island.ids]:
            self._close(one, False)  # it was to be looked at, and something had to be done again
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(3).hex()}"
        run = Run(name, "watch", island.plan, outcomes, False)
        if any(outcome.result is not Result.APPLIED for outcome in outcomes):
            self._write(run, False)
            return
        left = {id for id in island.ids if id in island.about.wanted.desired}
        if left:
            self._open.append(_Open(run, left, time.time()))
        else:
            self._write(run, True)

    def proved(self, id: ResourceId) -> None:
        """A fresh look found it as declared."""
        for one in list(self._open):
            one.left.discard(id)
            if not one.left:
                self._close(one, True)

    def unproved(self) -> list[dict[str, object]]:
        """What was carried out, and no look has proved yet: as the history will have it, its end left open."""
        return [
            {
                "id": one.run.id,
                "at": one.at,
                "environment": one.run.plan.environment,
                "trigger": one.run.trigger,
                "converged": None,
                "outcomes": rows_of(one.run),
            }
            for one in self._open
        ]

    def close(self) -> None:
        """What has no proof yet is written down without."""
        for one in list(self._open):
            self._close(one, False)

    def _close(self, one: _Open, converged: bool) -> None:
        self._open.remove(one)
        self._write(one.run, converged)

    def _write(self, run: Run, converged: bool) -> None:
        try:
            history = History(self._state)
            history.add(Run(run.id, run.trigger, run.plan, run.outcomes, converged))
            history.close()
            self.trouble = ""
        except (sqlite3.Error, OSError) as error:
            self.trouble = str(error)


class Kept:
    """A sink that keeps events beyond our own life. The file is opened by the thread that tells the first one."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._events: Events | None = None
        self._waiting: list[Event] = []

    def __call__(self, event: Event) -> None:
        if event.reason != "Progress":  # of interest while it happens
            self._waiting.append(event)

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            if self._events is None:
                self._events = Events(self._state)
            self._events.add_all((one.at, one.environment, one.document()) for one in waiting)
        except (sqlite3.Error, OSError):
            self._events = None  # tried again with the next ones; whoever follows us live misses nothing
