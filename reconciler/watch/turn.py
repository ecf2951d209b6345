"""WATCH: whose turn it is. The environment's lock, taken while something is done and given away when others wait."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from reconciler.problems import Locked, Problem
from reconciler.record import is_awaited, locked

_RETRY = 0.2
_AWAY = 0.6
"""Seconds that somebody who waits gets to take the lock: they look every fifth of a second."""


class Turn:
    """The lock as the daemon holds it. holder: who has it, when we could not; again: when to try (monotonic)."""

    def __init__(self, state: Path) -> None:
        self.holder = ""
        self.again = 0.0
        self._state = state
        self._held: ExitStack | None = None
        self._alone = ExitStack()

    def be_the_only_one(self, environment: str) -> None:
        """Raises Locked when another watch of this environment runs. Until we end."""
        try:
            self._alone.enter_context(locked(self._state, f"{environment}.watch", 0.0))
        except Locked as error:
            who = error.problems[0].summary.partition(": ")[2]
            problem = Problem(
                f"it is watched already: {who}",
                subject=f"Environment/{environment}",
                hint="end that one first; reconciler status asks it",
            )
            raise Locked(problem) from None

    def take(self, environment: str, now: float, busy: bool) -> bool:
        """Whether something new may be begun. busy: something is at work, so the lock cannot be given away yet."""
        if now < self.again:
            return False
        if self._held is not None:
            if not is_awaited(self._state, environment):
                return True
            if not busy:
                self.release()
            self.again = now + _AWAY
            return False
        stack = ExitStack()
        try:
            stack.enter_context(locked(self._state, environment, 0.0))
        except Locked as error:
            self.holder = error.problems[0].summary.partition(": ")[2]
            self.again = now + _RETRY
            return False
        self.holder, self._held = "", stack
        return True

    def end(self) -> None:
        """Another watch may begin."""
        self.release()
        self._alone.close()

    def release(self) -> None:
        """Nothing is at work any more."""
        held, self._held = self._held, None
        if held is not None:
            held.close()
