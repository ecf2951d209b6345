"""PLAN: a network that moves takes its users along, so its step is told how they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.model import Desired, ResourceId, Step, Verb

_SUBNETS = frozenset({"ipv4", "ipv6", "config"})


def with_users(desired: Mapping[ResourceId, Desired], steps: Iterable[Step]) -> dict[ResourceId, Desired]:
    """Each Network whose addresses change, with the specs of what needs it and is not held."""
    every = tuple(steps)
    held = {step.id for step in every if step.verb is Verb.HOLD}
    return {
        step.id: replace(desired[step.id], users=_users(step.id, desired, held))
        for step in every
        if step.id.kind == "Network" and step.id in desired and any(one.path[0] in _SUBNETS for one in step.changes)
    }


def _users(
    id: ResourceId, desired: Mapping[ResourceId, Desired], held: Iterable[ResourceId]
) -> dict[ResourceId, Mapping[str, object]]:
    left = set(held)
    return {user: want.spec for user, want in desired.items() if id in want.needs and user not in left}
