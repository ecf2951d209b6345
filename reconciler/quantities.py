"""RESOLVE's arithmetic: sizes and durations as people write them → bytes and seconds. Pure."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+)\s?(B|[kKMGTPE]B?|[KMGTPE]iB)?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: dict[str, int] = {"": 1, "B": 1, "k": 1000, "kB": 1000}
for _power, _letter in enumerate("KMGTPE", start=1):
    _UNITS |= {_letter: 1000**_power, f"{_letter}B": 1000**_power, f"{_letter}iB": 1024**_power}
_SECONDS: dict[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def size(value: int | str) -> int:
    """Bytes of ``512MiB`` (1024²), ``512MB`` or ``512M`` (1000²), or an integer of bytes. ValueError otherwise."""
    if isinstance(value, int):
        return value
    if not (match := _SIZE.fullmatch(value)):
        raise ValueError(f'expected a size such as "2GiB", got "{value}"')
    return int(match[1]) * _UNITS[match[2] or ""]


def duration(value: float | str) -> float:
    """Seconds of ``30s``, ``5m``, ``1.5h``, or a number of seconds. ValueError otherwise."""
    if isinstance(value, int | float):
        return value
    if not (match := _DURATION.fullmatch(value)):
        raise ValueError(f'expected a duration such as "30s", got "{value}"')
    seconds = float(match[1]) * _SECONDS[match[2]]
    return int(seconds) if seconds == int(seconds) else seconds


def human_size(bytes_: int) -> str:
    """The shortest exact way to write it: ``2GiB``, else bytes."""
    for unit in ("EiB", "PiB", "TiB", "GiB", "MiB", "KiB"):
        if bytes_ and bytes_ % _UNITS[unit] == 0:
            return f"{bytes_ // _UNITS[unit]}{unit}"
    return str(bytes_)
