"""Used by every talk with LXD: one moment after which nobody waits any more."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock."""

    until: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self.until - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left <= 0.0

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and that many seconds from now."""
        return Deadline(min(self.until, time.monotonic() + seconds))
