"""PLAN: steps → a DAG: what must end before what, what is held because of what it needs, and the deletion guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.model import Desired, ResourceId, Step, Verb, World
from reconciler.planning.asked import Asked, hold
from reconciler.planning.moving import moves, with_moves
from reconciler.planning.passages import letting_go
from reconciler.problems import Problem


def held_by_needs(
    chosen: Mapping[ResourceId, Desired], decided: Mapping[ResourceId, Step], world: World
) -> dict[ResourceId, Step]:
    """What needs something that is held and not there is held too, however long the chain."""
    steps: dict[ResourceId, Step] = {}

    def settle(id: ResourceId) -> Step:
        if id in steps:
            return steps[id]
        step = steps[id] = decided[id]
        if step.verb in (Verb.NOOP, Verb.HOLD):
            return step
        for need in chosen[id].needs:
            if need not in decided or settle(need).verb is not Verb.HOLD:
                continue
            if world.find(decided[need].backend, need) is None:
                steps[id] = hold(chosen[id], f"waits for {need}, which is held")
                break
        return steps[id]

    for id in decided:
        settle(id)
    return steps


def in_order(steps: Mapping[ResourceId, Step], chosen: Mapping[ResourceId, Desired], world: World) -> tuple[Step, ...]:
    """Fill in ``after``: needs before what needs them, for deletion the other way round; what moves leaves first.
    Sorted by name."""
    active = {id for id, step in steps.items() if step.verb not in (Verb.NOOP, Verb.HOLD)}
    users: dict[ResourceId, set[ResourceId]] = {}
    for seen in world:
        for need in seen.needs:
            users.setdefault(need, set()).add(seen.id)
    before: dict[ResourceId, set[ResourceId]] = {}
    for id, step in steps.items():
        first = users.get(id, set()) if step.verb is Verb.DELETE else set(chosen[id].needs) if id in chosen else set()
        before[id] = (first & active) - {id}
    before = with_moves(letting_go(before, steps, world), moves(steps, chosen, world))
    return tuple(replace(steps[id], after=tuple(sorted(before[id]))) for id in sorted(steps))


def guard(steps: tuple[Step, ...], asked: Asked) -> Problem | None:
    """The deletion guard: more than max(3, 20 %) of what we own does not go without a word."""
    deletions = [step for step in steps if step.verb is Verb.DELETE]
    owned = sum(1 for seen in asked.world if asked.is_ours(seen) and seen.id.kind != "Host")
    limit = max(3, owned // 5)
    if asked.options.confirm_delete or len(deletions) <= limit:
        return None
    return Problem(
        f"this plan deletes {len(deletions)} of the {owned} resources we own, more than {limit}",
        subject=f"Environment/{asked.environment}",
        hint="if that is meant, say --confirm-delete",
    )
