"""Beside the flow: waiting until something can be read. Not with ``select``, which knows no descriptor beyond 1023:
whoever watches hundreds of VMs has more of them.
"""

from __future__ import annotations

import math
import select
from collections.abc import Iterable
from typing import Protocol


class File(Protocol):
    """Whatever has a descriptor."""

    def fileno(self) -> int: ...


def readable(files: Iterable[File | int], seconds: float | None) -> set[int]:
    """The descriptors that can be read, or that have come to their end, as soon as there is one; empty when there was
    none within that many seconds (None: however long it takes)."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return {handle for handle, _ in poll.poll(None if seconds is None else math.ceil(max(0.0, seconds) * 1000))}
