"""What is wanted together is made at the same time, unless one says that it needs the other: both labs insist on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.model import Desired


def unordered(wanted: Sequence[Desired]) -> list[str]:
    """Who names another of them without needing it, in words: such a pair would race."""
    return [
        f"{want.id} names {other.id}: give it needs=({other.id},)"
        for want in wanted
        for other in wanted
        if other is not want
        and other.id not in {*want.needs, *want.expects}
        and want.id not in other.needs
        and other.id.name in _words(want.spec)
    ]


def _words(spec: Any) -> Iterator[str]:
    if isinstance(spec, str):
        yield spec
    elif isinstance(spec, dict):
        for value in spec.values():
            yield from _words(value)
    elif isinstance(spec, list | tuple):
        for value in spec:
            yield from _words(value)
