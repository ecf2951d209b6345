"""Random kills: how many cycles, in which order, and work that is killed (really: SIGKILL) part of the way."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.examples import SEED

CYCLES = int(os.environ.get("FAULT_CYCLES") or "15")
_LONGEST = 4.0  # seconds: work that waits for what does not answer may take much longer, and is killed while it waits


@dataclass(slots=True)
class Killer:
    """Picks moments within the time that such work takes. longest: seconds, learnt from work that came to its end."""

    chance: random.Random
    longest: float = 1.0
    killed: int = 0
    moments: list[float] = field(default_factory=list)
    _child: int = 0

    def part_of(self, work: Callable[[], object]) -> None:
        """Do the work in a process of its own, and kill that before its end (or, sometimes, not)."""
        with self.beside(work) as moment:
            child, began = self._child, time.monotonic()
            while not _ended(child) and time.monotonic() - began < moment:
                time.sleep(0.002)
            if not _ended(child):
                os.kill(child, signal.SIGKILL)
                self.killed += 1

    @contextmanager
    def beside(self, work: Callable[[], object]) -> Iterator[float]:
        """Do the work in a process of its own; yields seconds after which to disturb it; waits for its end."""
        moment = self.chance.uniform(0, 1.1 * self.longest)
        self.moments.append(round(moment, 3))
        began = time.monotonic()
        self._child = os.fork()
        if self._child == 0:
            try:
                work()
            finally:
                os._exit(0)
        try:
            yield moment
        finally:
            _, status = os.waitpid(self._child, 0)
        if os.WIFEXITED(status):
            self.longest = min(_LONGEST, max(0.2, time.monotonic() - began))


def _ended(child: int) -> bool:
    """Whether it has; it stays to be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def cycles(what: str) -> Iterator[tuple[int, random.Random]]:
    """One after the other: (number, its own chance). What is printed is shown when a test fails, to go that way again.

    FAULT_CYCLES says how many, FAULT_SEED which: the same ones in a normal run, others each time in a soak.
    """
    print(f"FAULT_SEED={SEED} FAULT_CYCLES={CYCLES}  # {what}")
    for number in range(CYCLES):
        yield number, random.Random(f"{SEED} {what} {number}")
