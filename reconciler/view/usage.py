"""VIEW: what guests take: ``top`` as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.model import Json, Observed
from reconciler.view.documents import host_of
from reconciler.view.text import Line, Span, clean, table

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_BUSY = 90.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What one guest takes. cpu: percent of one processor; memory: bytes; uptime: seconds; None: not known."""

    guest: Observed
    cpu: float
    memory: int
    processes: int | None
    uptime: float | None


def usage_table(taken: Sequence[Taken]) -> list[Line]:
    """One row a guest, whoever takes most of the processors first."""
    rows = [_row(one) for one in sorted(taken, key=lambda one: (-round(one.cpu, 1), one.guest.id, one.guest.backend))]
    return table(["GUEST", "HOST", "CPU", "MEMORY", "PROCESSES", "UPTIME"], rows)


def usage_document(taken: Sequence[Taken]) -> Json:
    """The same for programs."""
    return [
        {
            "id": str(one.guest.id),
            "host": host_of(one.guest),
            "cpu": round(one.cpu, 1),
            "memory": one.memory,
            "processes": one.processes,
            "uptime": None if one.uptime is None else round(one.uptime),
        }
        for one in sorted(taken, key=lambda one: (one.guest.id, one.guest.backend))
    ]


def _row(one: Taken) -> list[str | Span]:
    processes = "" if one.processes is None else str(one.processes)
    return [
        (clean(str(one.guest.id)), "bold"),
        clean(host_of(one.guest)),
        (f"{one.cpu:.1f}%", "warn" if one.cpu > _BUSY else ""),
        about(one.memory),
        processes,
        "" if one.uptime is None else lasting(one.uptime),
    ]


def about(size: int) -> str:
    """A size as people compare it: ``1.4GiB``."""
    factor, unit = next(((factor, unit) for factor, unit in _UNITS if size >= factor), (1, "B"))
    return f"{size / factor:.1f}{unit}" if factor > 1 else f"{size}B"


def lasting(seconds: float) -> str:
    """A time in its two largest units: ``3d 4h``."""
    left = int(seconds)
    parts: list[str] = []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, length)
        parts += [f"{count}{unit}"] if count or parts else []
    return " ".join(parts[:2]) or "0s"
