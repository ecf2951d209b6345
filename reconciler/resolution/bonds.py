"""RESOLVE, again: who hangs on what, both ways round, kept up to date by what changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from reconciler.desired import ResourceId


@dataclass(slots=True)
class Bonds:
    """Who hangs on what, both ways round."""

    of: dict[ResourceId, frozenset[Any]] = field(default_factory=dict)
    to: dict[Any, set[ResourceId]] = field(default_factory=dict)
    _same: dict[frozenset[Any], frozenset[Any]] = field(default_factory=dict)

    def put(self, id: ResourceId, on: Collection[Any]) -> None:
        """It hangs on these from now on, and on nothing else."""
        before, after = self.of.get(id, frozenset()), frozenset(on)
        if before == after:
            return
        for gone in before - after:
            self.to[gone].discard(id)
            if not self.to[gone]:
                del self.to[gone]
        for one in after - before:
            self.to.setdefault(one, set()).add(id)
        if not after:
            del self.of[id]
            return
        if len(self._same) > 2 * len(self.of) + 64:
            self._same.clear()
        self.of[id] = self._same.setdefault(after, after)  # a thousand hang on the same

    def who(self, on: Iterable[Any]) -> set[ResourceId]:
        """Everything that hangs on one of these."""
        return {id for one in on for id in self.to.get(one, ())}
