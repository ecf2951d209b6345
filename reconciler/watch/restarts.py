"""WATCH: guests that end again and again are started again later and later. Pure: the time comes in."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

INTERVAL = 600.0
"""Seconds: what happened before that is forgiven."""
LIMIT = 3
"""Starts within the interval before it is called a crash loop."""


@dataclass(slots=True)
class Restarts(Generic[K]):
    """When guests that had ended were started again. first, most: seconds; the first restart waits for nothing."""

    first: float = 1.0
    most: float = 300.0
    interval: float = INTERVAL
    _starts: dict[K, list[float]] = field(default_factory=dict)

    def started(self, guest: K, now: float) -> None:
        """It had ended, and is started again now."""
        self._starts[guest] = [*self._recent(guest, now), now]

    def pause(self, guest: K, now: float) -> float:
        """Seconds that are left until it may be started again; 0: now."""
        recent = self._recent(guest, now)
        if not recent:
            return 0.0
        wait = min(self.most, self.first * 2.0 ** (len(recent) - 1))
        return max(0.0, recent[-1] + wait - now)

    def count(self, guest: K, now: float) -> int:
        """How often it was started again lately."""
        return len(self._recent(guest, now))

    def in_loop(self, guest: K, now: float) -> bool:
        """Whether this is a crash loop by now."""
        return self.count(guest, now) >= LIMIT

    def forget(self, guest: K) -> None:
        """Somebody has changed it, or asks for it: a clean slate."""
        self._starts.pop(guest, None)

    def _recent(self, guest: K, now: float) -> list[float]:
        return [at for at in self._starts.get(guest, ()) if at + self.interval > now]
