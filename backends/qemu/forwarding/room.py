"""APPLY, in the forwarder: how many connections there may be: what comes from outside must not use the host up."""

from __future__ import annotations

from typing import Protocol

MOST = 256
"""Connections and conversations of one VM, all its ports together."""


class Waiting(Protocol):
    """Whoever takes connections."""

    def listen(self) -> None:
        """Look again whether there is room."""


class Room:
    """Counts them, and tells those who take them when there is room again."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: list[Waiting] = []

    @property
    def full(self) -> bool:
        """Whether nobody more can be taken."""
        return self._count >= MOST

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def enter(self, one: Waiting) -> None:
        """It takes connections from now on."""
        self._waiting.append(one)

    def leave(self, one: Waiting) -> None:
        """It takes none any more."""
        self._waiting.remove(one)

    def take(self) -> None:
        """One more."""
        self._count += 1
        if self.full:
            self._tell()

    def give(self) -> None:
        """One less."""
        was_full = self.full
        self._count -= 1
        if was_full:
            self._tell()

    def _tell(self) -> None:
        for one in self._waiting:
            one.listen()
