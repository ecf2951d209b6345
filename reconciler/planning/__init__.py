"""PLAN: desired and world → a DAG of steps. Purely computational: no I/O, and the same answer in whatever order.

``_decide`` reads like the list of cases it is. The reason of a step is for people; nothing branches on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.attachments import carried as carried_by
from reconciler.effects import Table
from reconciler.model import Change, Desired, Effect, Observed, Plan, ResourceId, Step, Verb, World
from reconciler.planning.asked import Asked, PlanOptions, hold, unanswering, whose
from reconciler.planning.attaching import carried, clashes, is_attachment
from reconciler.planning.comparing import compare
from reconciler.planning.following import is_followed, with_followed
from reconciler.planning.following import split as ports_instead
from reconciler.planning.following import told as port_step
from reconciler.planning.judging import settled, step, verdict
from reconciler.planning.leaving import deleted, leftover_notes, leftovers, pruned, split_targets, taken_out
from reconciler.planning.ordering import guard, held_by_needs, in_order
from reconciler.planning.passages import with_passages
from reconciler.planning.resetting import made_anew, with_what_is_inside
from reconciler.planning.towers import with_towers
from reconciler.planning.users import with_users
from reconciler.planning.waiting import given, told

__all__ = ["PlanOptions", "chosen", "plan", "plan_delete"]


def plan(
    environment: str,
    desired: Mapping[ResourceId, Desired],
    world: World,
    tables: Mapping[str, Table],
    options: PlanOptions,
) -> Plan:
    """What has to be done, resource by resource, so that the world becomes as desired."""
    asked = Asked(environment, world, tables, options)
    about = with_followed(chosen(desired, options.only), world)
    objects = {id: want for id, want in about.items() if not is_attachment(want)}
    taken = clashes(objects, world)
    decided = {
        id: told(_decide(asked, given(want, taken.get(id, ()))), taken.get(id, ())) for id, want in objects.items()
    }
    decided = with_what_is_inside(decided, objects, world, options)
    steps = with_passages(held_by_needs(objects, with_towers(objects, decided, world), world), world)
    steps |= {id: _attachment(want, about, steps, world) for id, want in about.items() if is_attachment(want)}
    left = list(leftovers(asked, desired)) if not options.only else []
    if options.prune:
        steps.update({seen.id: pruned(seen) for seen in left})
    ordered = in_order(steps, about, world)
    notes = () if options.prune else leftover_notes(left)
    adjusted = {id: want for id, want in about.items() if want is not desired[id]}
    adjusted |= {one.id: given(about[one.id], one.waiting) for one in ordered if one.waiting}
    adjusted |= with_users({**about, **adjusted}, ordered)
    return Plan(environment, ordered, notes, guard(ordered, asked), adjusted)


def plan_delete(
    environment: str,
    targets: Mapping[ResourceId, str | None],
    world: World,
    options: PlanOptions,
    tables: Mapping[str, Table] | None = None,
) -> Plan:
    """What has to be done so that the targets are gone. Data is kept unless deleting it was confirmed or declared.

    targets: each with the backend that it lives in, where that is known (None: wherever it is found)
    tables:  what taking an attachment out of a guest costs; only asked when a target is one
    """
    asked = Asked(environment, world, tables or {}, options)
    objects, attached = split_targets(targets)
    attached = ports_instead(attached, (id for seen in world for id, _ in carried_by(seen.id.kind, seen.spec)))
    going = {id: deleted(asked, id, home) for id, home in objects.items()}
    left, wanted = taken_out(asked, attached, going)
    ordered = in_order({**going, **left}, {}, world)
    adjusted = {one.id: given(wanted[one.id], one.waiting) for one in ordered if one.id in wanted}
    return Plan(environment, ordered, adjusted=adjusted)


def chosen(desired: Mapping[ResourceId, Desired], only: frozenset[ResourceId]) -> dict[ResourceId, Desired]:
    """All of it, or ``only`` with everything that it needs."""
    if not only:
        return dict(sorted(desired.items()))
    found: dict[ResourceId, Desired] = {}
    waiting = [id for id in only if id in desired]
    while waiting:
        id = waiting.pop()
        if id not in found:
            found[id] = desired[id]
            waiting.extend(need for need in desired[id].needs if need in desired)
    return dict(sorted(found.items()))


def _attachment(
    want: Desired, about: Mapping[ResourceId, Desired], steps: Mapping[ResourceId, Step], world: World
) -> Step:
    return port_step(want, about, steps, world) if is_followed(want) else carried(want, about, steps)


def _decide(asked: Asked, want: Desired) -> Step:
    """One resource, one step: the first case that fits."""
    seen = asked.world.find(want.backend, want.id)
    if problem := asked.world.problem(want.backend):
        return hold(want, f"not known: {problem.summary}")
    if missing := _missing(want, asked.world):
        return hold(want, f"refers to {missing}, which is neither declared nor there")
    if seen is None:
        return _appearing(asked, want)
    if (unknown := unanswering(seen)) is not None:
        return hold(want, f"not known: {unknown}")
    if not asked.is_ours(seen) and want.id.kind == "Image" and not compare(want, seen)[0]:
        return Step(want.id, want.backend, Verb.NOOP, f"{whose(seen)}, and is the very image that is declared")
    if not asked.is_ours(seen) and not asked.options.adopt:
        return hold(want, f"{whose(seen)}; --adopt takes it over")
    return _existing(asked, want, seen)


def _missing(want: Desired, world: World) -> ResourceId | None:
    return next((id for id in want.expects if world.find(want.backend, id) is None), None)


def _appearing(asked: Asked, want: Desired) -> Step:
    old = asked.world.find(want.backend, want.renamed_from) if want.renamed_from else None
    if old is None or not asked.is_ours(old):
        return step(want, Verb.CREATE, Effect.LIVE, "it does not exist", (), ())
    rename = Change("change", ("metadata", "name"), old.id.name, want.id.name)
    changes, notes = compare(want, old)
    return verdict(asked, want, old, (rename, *changes), notes, "it was renamed")


def _existing(asked: Asked, want: Desired, seen: Observed) -> Step:
    if want.id in asked.options.reset:
        return made_anew(want, seen, asked.options.confirm_delete)
    changes, notes = compare(want, seen)
    if not asked.is_ours(seen):
        owner = Change("change", ("owner",), seen.environment, asked.environment)
        return verdict(asked, want, seen, (owner, *changes), notes, "it is taken over")
    if changes:
        return verdict(asked, want, seen, changes, notes, "fields differ")
    return settled(want, seen, notes)
