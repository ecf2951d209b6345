"""Beside the flow: which resources are to be looked at, and when. Pure: the time comes in, and so does chance.

A key is waiting, or at work, or neither. It is never at work twice: what is asked for meanwhile is remembered, and
comes after. What fails comes again later and later; what goes well has a clean slate.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long what failed waits. first, most: seconds; each pause is twice the last, give or take ``jitter`` of it."""

    first: float = 0.5
    most: float = 300.0
    jitter: float = 0.2

    def pause(self, failures: int, chance: float) -> float:
        """Seconds before the next try. failures: how often it failed already (1 or more); chance: from 0 to 1."""
        plain = min(self.most, self.first * 2.0 ** min(failures - 1, 30))
        return min(self.most, plain * (1 - self.jitter + 2 * self.jitter * chance))


class WorkQueue(Generic[K]):
    """Keys, and when each is due. Times are seconds of any clock that never goes back."""

    def __init__(self, backoff: Backoff = Backoff(), chance: Callable[[], float] = lambda: 0.5) -> None:
        self._backoff = backoff
        self._chance = chance
        self._due: dict[K, float] = {}
        self._order: list[tuple[float, int, K]] = []  # may hold what is no longer true: ``_due`` decides
        self._count = 0
        self._working: set[K] = set()
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}

    def add(self, keys: Iterable[K], now: float, delay: float = 0.0) -> None:
        """Have them looked at, in ``delay`` seconds at the latest. A key that waits for longer comes sooner."""
        for key in keys:
            if key in self._working:
                self._again[key] = min(now + delay, self._again.get(key, now + delay))
            else:
                self._put(key, now + delay)

    def take(self, now: float) -> list[K]:
        """Everything that is due, in the order in which it became due; it is at work from now on."""
        taken: list[K] = []
        while self._order and self._order[0][0] <= now:
            at, _, key = heapq.heappop(self._order)
            if self._due.get(key) == at:
                del self._due[key]
                self._working.add(key)
                taken.append(key)
        return taken

    def claim(self, keys: Iterable[K]) -> None:
        """They are at work from now on, although nobody asked for them: something else takes them along."""
        for key in keys:
            self._due.pop(key, None)
            self._working.add(key)

    def done(self, key: K, now: float, ok: bool = True, pause: float | None = None) -> None:
        """It is no longer at work. Not ok: it comes again after a pause of its own (or after this one, in seconds)."""
        self._working.discard(key)
        again = self._again.pop(key, None)
        if ok:
            self._failures.pop(key, None)
        else:
            self._failures[key] = self._failures.get(key, 0) + 1
            wait = self._backoff.pause(self._failures[key], self._chance()) if pause is None else pause
            # Events do not hurry what fails: its own failure made half of them.
            again = now + wait
        if again is not None:
            self._put(key, again)

    def forget(self, keys: Iterable[K]) -> None:
        """Nobody wants to know about them any more."""
        for key in keys:
            self._due.pop(key, None)
            self._again.pop(key, None)
            self._failures.pop(key, None)

    def hurry(self, keys: Iterable[K], now: float) -> None:
        """Somebody asks for them: no pause counts any longer."""
        for key in keys:
            self._failures.pop(key, None)
            self.add([key], now)

    def next_due(self) -> float | None:
        """When the next key is due; None when none waits."""
        while self._order and self._due.get(self._order[0][2]) != self._order[0][0]:
            heapq.heappop(self._order)
        return self._order[0][0] if self._order else None

    def failures(self, key: K) -> int:
        """How often it failed since it last went well."""
        return self._failures.get(key, 0)

    @property
    def depth(self) -> int:
        """How many wait."""
        return len(self._due)

    @property
    def working(self) -> frozenset[K]:
        """Those at work."""
        return frozenset(self._working)

    def _put(self, key: K, at: float) -> None:
        if key in self._due and self._due[key] <= at:
            return
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._order, (at, self._count, key))
