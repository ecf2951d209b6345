"""PLAN: what planning is asked about, and what all of its parts ask of an observed resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.effects import Table
from reconciler.model import Desired, Effect, Observed, ResourceId, Step, Verb, World


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """prune: delete what we own and nobody declares any more; adopt: take over what is not ours;
    only: look at these (and what they need) alone; confirm_delete: the deletion guard was answered;
    allow: the worst effect that may happen now, whatever ``updatePolicy`` says (RESTART or REPLACE);
    unattended: the worst that may happen to what has no ``updatePolicy``, because nobody is there to be asked;
    None: somebody is;
    reset: the guest that is to be made anew from its image, whatever it is like now."""

    prune: bool = False
    adopt: bool = False
    only: frozenset[ResourceId] = frozenset()
    confirm_delete: bool = False
    allow: Effect | None = None
    unattended: Effect | None = None
    reset: frozenset[ResourceId] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: for which environment, in which world, with which effects tables, and how."""

    environment: str
    world: World
    tables: Mapping[str, Table]
    options: PlanOptions

    def table(self, backend: str) -> Table:
        """The effects table of a backend; nothing for one that was not asked."""
        return self.tables.get(backend, {})

    def is_ours(self, seen: Observed) -> bool:
        """Whether it bears this environment's mark."""
        return seen.owned and seen.environment in (self.environment, None)


def hold(want: Desired, reason: str) -> Step:
    """The step that does nothing, and says why."""
    return Step(want.id, want.backend, Verb.HOLD, reason)


def unanswering(seen: Observed) -> str | None:
    """Why the backend could not tell what this one is doing; None when it could."""
    for condition in seen.conditions:
        if condition.type == "Answering" and condition.status is False:
            return condition.message or condition.reason
    return None


def whose(seen: Observed) -> str:
    """Whose it is, when it is not this environment's."""
    return f'it belongs to environment "{seen.environment}"' if seen.owned else "it exists, not made by us"
