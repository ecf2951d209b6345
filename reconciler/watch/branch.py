"""WATCH: what is wanted comes from a branch of a Git repository: asked every so often, in a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reconciler.gitops import GitSource, Repository, State, Taken
from reconciler.model import ResourceId
from reconciler.preparation import Wanted
from reconciler.problems import Problem
from reconciler.watch.source import changed, other_environment

_PATIENCE = 5.0
_AGAIN = 5.0
"""Seconds until what should never go wrong, or a full disk, is tried again."""


class BranchSource:
    """Satisfies ``source.Source``: the newest accepted commit that is right is wanted, or what was rolled back to."""

    def __init__(self, repository: Repository, state: Path, interval: float, wake: Callable[[], None]) -> None:
        """interval: seconds between two questions to the server. Raises UsageError."""
        self.wanted: Wanted | None = None
        self.problems: tuple[Problem, ...] = ()
        self.readings = 0
        self._git = GitSource(repository, state)
        self._interval = interval
        self._wake = wake
        self._lock = threading.Lock()
        self._fresh: tuple[State, Taken] | Problem | None = None
        self._commit: str | None = None
        self._proved: str | None = None
        self._asked = False
        self._knock = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="git", daemon=True)
        self._thread.start()

    def due(self) -> float:
        with self._lock:
            return 0.0 if self._fresh is not None else math.inf

    def refresh(self, force: bool = False) -> bool:
        """force: ask the server now; what it says is there a little later."""
        if force:
            self._hurry()
        with self._lock:
            fresh, self._fresh = self._fresh, None
        if fresh is None:
            return False
        before = self.wanted, self.problems
        if isinstance(fresh, Problem):
            self.problems = (fresh,)
        else:
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
        """Noted a moment later: whoever decides must not wait for the server, which may be asked just now."""
        if self._commit is not None and wanted is self.wanted:
            self._proved = self._commit
            self._knock.set()

    def rollback(self, revision: str) -> None:
        self._git.rollback(revision)
        self._hurry()

    def resume(self) -> None:
        self._git.resume()
        self._hurry()

    def status(self) -> Mapping[str, Any]:
        state, given = self._git.state(), self._git.repository
        return {
            "source": f"{given.shown} {given.ref} {given.path}",
            "applied": self._proved or state.applied,
            "accepted": state.head,
            "seen": state.seen,
            "rolledBackTo": state.pinned,
            "reached": state.reached,
        }

    def close(self) -> None:
        self._end.set()
        self._knock.set()
        self._thread.join(_PATIENCE)

    def _hurry(self) -> None:
        """Ask the server at once."""
        self._asked = True
        self._knock.set()

    def _follow(self) -> None:
        due = 0.0
        while not self._end.is_set():
            self._knock.clear()
            news, self._asked = self._asked, False
            try:
                self._note_proved()
                if news or time.monotonic() >= due:
                    due = self._look(news)
            except Exception as error:  # noqa: BLE001  a full disk, or a bug of ours: told, and tried again
                self._put(_trouble(error))
                due = time.monotonic() + _AGAIN
            self._knock.wait(max(0.0, due - time.monotonic()))
        with suppress(OSError):
            self._note_proved()

    def _note_proved(self) -> None:
        if (commit := self._proved) is not None:
            self._git.note_applied(commit)
            if self._proved == commit:
                self._proved = None

    def _look(self, news: bool) -> float:
        """Ask the server, and take what it has; when to do so again (monotonic)."""
        began = time.monotonic()
        state = self._git.fetch(news)
        self._put((state, self._git.take()))
        now = time.monotonic()
        return now + max(self._interval - (now - began), self._interval / 2)  # a slow server has to breathe, too

    def _put(self, fresh: tuple[State, Taken] | Problem) -> None:
        with self._lock:
            self._fresh = fresh
        self._wake()

    def _take(self, state: State, taken: Taken) -> None:
        trouble = () if state.problem is None else (state.problem,)
        self.problems = taken.problems or trouble
        if taken.wanted is None or taken.commit == self._commit:
            return
        if self.wanted is not None and taken.wanted.environment != self.wanted.environment:
            self.problems = (other_environment(self.wanted.environment, taken.wanted.environment),)
            return
        self.wanted, self._commit = taken.wanted, taken.commit
        self.readings += 1


def _trouble(error: Exception) -> Problem:
    """Why the repository was not even looked at."""
    words = str(error.strerror) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    hint = "what was accepted last stays; it is tried again by itself"
    return Problem("what is known of the repository cannot be kept", detail=words, hint=hint)
