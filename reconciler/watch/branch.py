"""WATCH: what is wanted comes from a branch of a Git repository: asked every so often, in a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from reconciler.gitops import GitSource, Repository, State, Taken
from reconciler.model import ResourceId
from reconciler.preparation import Wanted
from reconciler.problems import Problem
from reconciler.watch.source import changed, other_environment

_PATIENCE = 5.0


class BranchSource:
    """Satisfies ``source.Source``: the newest accepted commit that is right is wanted, or what was rolled back to."""

    def __init__(self, repository: Repository, state: Path, interval: float, wake: Callable[[], None]) -> None:
        """interval: seconds between two questions to the server. Raises UsageError."""
        self.wanted: Wanted | None = None
        self.problems: tuple[Problem, ...] = ()
        self._git = GitSource(repository, state)
        self._interval = interval
        self._wake = wake
        self._lock = threading.Lock()
        self._fresh: tuple[State, Taken] | None = None
        self._commit: str | None = None
        self._now = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="git", daemon=True)
        self._thread.start()

    def due(self) -> float:
        with self._lock:
            return 0.0 if self._fresh is not None else math.inf

    def refresh(self, force: bool = False) -> bool:
        """force: ask the server now; what it says is there a little later."""
        if force:
            self._now.set()
        with self._lock:
            fresh, self._fresh = self._fresh, None
        if fresh is None:
            return False
        before = self.wanted, self.problems
        self._take(*fresh)
        return (self.wanted, self.problems) != before

    def moved(self, before: Wanted) -> Collection[ResourceId]:
        return changed(before.desired, self.wanted.desired if self.wanted is not None else {})

    def hold(self) -> str:
        state = self._git.state()
        if state.suspended:
            return "the repository is suspended"
        return "only observing the repository" if state.observing else ""

    def proved(self, wanted: Wanted) -> None:
        if self._commit is not None and wanted is self.wanted:
            self._git.note_applied(self._commit)

    def rollback(self, revision: str) -> None:
        self._git.rollback(revision)
        self._now.set()

    def resume(self) -> None:
        self._git.resume()
        self._now.set()

    def status(self) -> Mapping[str, Any]:
        state, given = self._git.state(), self._git.repository
        return {
            "source": f"{given.shown} {given.ref} {given.path}",
            "applied": state.applied,
            "accepted": state.head,
            "seen": state.seen,
            "rolledBackTo": state.pinned,
            "reached": state.reached,
        }

    def close(self) -> None:
        self._end.set()
        self._now.set()
        self._thread.join(_PATIENCE)

    def _follow(self) -> None:
        news = False
        while not self._end.is_set():
            began = time.monotonic()
            self._now.clear()
            state = self._git.fetch(news)
            taken = self._git.take()
            with self._lock:
                self._fresh = state, taken
            self._wake()
            left = self._interval - (time.monotonic() - began)
            news = self._now.wait(max(left, self._interval / 2))  # a server that is slow has to breathe, too

    def _take(self, state: State, taken: Taken) -> None:
        trouble = () if state.problem is None else (state.problem,)
        self.problems = taken.problems or trouble
        if taken.wanted is None or taken.commit == self._commit:
            return
        if self.wanted is not None and taken.wanted.environment != self.wanted.environment:
            self.problems = (other_environment(self.wanted.environment, taken.wanted.environment),)
            return
        self.wanted, self._commit = taken.wanted, taken.commit
