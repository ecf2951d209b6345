"""PLAN: desired and world → a DAG of steps. Purely computational: no I/O, and the same answer in whatever order.

``_decide`` reads like the list of cases it is. The reason of a step is for people; nothing branches on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from reconciler.diff import diff
from reconciler.effects import Table, effect_of, worst
from reconciler.model import (
    Change,
    Desired,
    Effect,
    Observed,
    Plan,
    Power,
    ResourceId,
    Spec,
    Step,
    Verb,
    World,
)
from reconciler.problems import Problem

LATER = frozenset({"Share", "Device", "PortForward"})
"""Kinds that manifests may hold already and that this version does not carry out."""

LATER_FIELDS: Mapping[str, Mapping[str, object]] = {
    "VirtualMachine": {"restart": "never", "lxd": False, "updatePolicy": None},
    "Container": {"updatePolicy": None},
    "Disk": {"mount": None},
}
"""Fields that this version records without acting upon them, each with the value that asks for nothing."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """prune: delete what we own and nobody declares any more; adopt: take over what is not ours;
    only: look at these (and what they need) alone; confirm_delete: the deletion guard was answered."""

    prune: bool = False
    adopt: bool = False
    only: frozenset[ResourceId] = frozenset()
    confirm_delete: bool = False


def plan(
    environment: str,
    desired: Mapping[ResourceId, Desired],
    world: World,
    tables: Mapping[str, Table],
    options: PlanOptions,
) -> Plan:
    """What has to be done, resource by resource, so that the world becomes as desired."""
    chosen = _chosen(desired, options.only)
    decided = {
        id: _decide(environment, want, world, tables.get(want.backend, {}), options) for id, want in chosen.items()
    }
    steps = _held_by_needs(chosen, decided, world)
    leftovers = list(_leftovers(environment, desired, world)) if not options.only else []
    if options.prune:
        steps.update({seen.id: _pruned(seen) for seen in leftovers})
    ordered = _in_order(steps, chosen, world)
    notes = () if options.prune else _leftover_notes(leftovers)
    return Plan(environment, ordered, notes, _guard(ordered, environment, world, options))


def plan_delete(environment: str, targets: Mapping[ResourceId, str | None], world: World, options: PlanOptions) -> Plan:
    """What has to be done so that the targets are gone. Data is kept unless deleting it was confirmed or declared.

    targets: each with the backend that it lives in, where that is known (None: wherever it is found)
    """
    steps = {id: _deleted(environment, id, home, world, options) for id, home in targets.items()}
    return Plan(environment, _in_order(steps, {}, world))


def _chosen(desired: Mapping[ResourceId, Desired], only: frozenset[ResourceId]) -> dict[ResourceId, Desired]:
    """All of it, or ``only`` with everything that it needs."""
    if not only:
        return dict(sorted(desired.items()))
    chosen: dict[ResourceId, Desired] = {}
    waiting = [id for id in only if id in desired]
    while waiting:
        id = waiting.pop()
        if id not in chosen:
            chosen[id] = desired[id]
            waiting.extend(need for need in desired[id].needs if need in desired)
    return dict(sorted(chosen.items()))


def _decide(environment: str, want: Desired, world: World, table: Table, options: PlanOptions) -> Step:
    """One resource, one step: the first case that fits."""
    seen = world.find(want.backend, want.id)
    if want.id.kind in LATER:
        return _hold(want, f"{want.id.kind} is accepted, but not carried out by this version")
    if problem := world.problem(want.backend):
        return _hold(want, f"not known: {problem.summary}")
    if missing := _missing(want, world):
        return _hold(want, f"refers to {missing}, which is neither declared nor there")
    if seen is None:
        return _appearing(environment, want, world, table)
    if (unknown := _unanswering(seen)) is not None:
        return _hold(want, f"not known: {unknown}")
    if not _is_ours(seen, environment) and want.id.kind == "Image" and not _compare(want, seen)[0]:
        return Step(want.id, want.backend, Verb.NOOP, f"{_whose(seen)}, and is the very image that is declared")
    if not _is_ours(seen, environment) and not options.adopt:
        return _hold(want, f"{_whose(seen)}; --adopt takes it over")
    return _existing(environment, want, seen, table)


def _missing(want: Desired, world: World) -> ResourceId | None:
    return next((id for id in want.expects if world.find(want.backend, id) is None), None)


def _unanswering(seen: Observed) -> str | None:
    """Why the backend could not tell what this one is doing; None when it could."""
    for condition in seen.conditions:
        if condition.type == "Answering" and condition.status is False:
            return condition.message or condition.reason
    return None


def _appearing(environment: str, want: Desired, world: World, table: Table) -> Step:
    old = world.find(want.backend, want.renamed_from) if want.renamed_from else None
    if old is None or not _is_ours(old, environment):
        return _step(want, Verb.CREATE, Effect.LIVE, "it does not exist", (), ())
    rename = Change("change", ("metadata", "name"), old.id.name, want.id.name)
    changes, notes = _compare(want, old)
    return _verdict(want, old, (rename, *changes), notes, table, "it was renamed")


def _existing(environment: str, want: Desired, seen: Observed, table: Table) -> Step:
    changes, notes = _compare(want, seen)
    if not _is_ours(seen, environment):
        owner = Change("change", ("owner",), seen.environment, environment)
        return _verdict(want, seen, (owner, *changes), notes, table, "it is taken over")
    if changes:
        return _verdict(want, seen, changes, notes, table, "fields differ")
    if seen.pending:
        return _step(want, Verb.UPDATE, Effect.LIVE, f"the last apply did not finish: {seen.pending}", (), notes)
    if not _same_record(want.spec, seen.applied):
        recorded = Change("change", ("recorded",), None, "as declared", Effect.LIVE, "nothing but our record changes")
        return _step(want, Verb.UPDATE, Effect.LIVE, "what is declared was never recorded", (recorded,), notes)
    return _step(want, Verb.NOOP, Effect.NONE, "as declared", (), notes)


def _compare(want: Desired, seen: Observed) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Every field that differs and that we are meant to change; and what is worth a note although it stays."""
    spec = dict(seen.spec)
    if seen.power is not None:
        spec["power"] = Power.STOPPED.value if seen.power is Power.ERROR else seen.power.value
    changes = diff(want.spec, spec, seen.applied, want.spec.get("ignore", ()))
    if _image_is_unknown(seen):
        return tuple(change for change in changes if change.path[0] != "image"), ()
    if want.spec.get("imagePolicy") != "create" or not any(_is_image(change.path) for change in changes):
        return changes, ()
    note = "its image has changed since; imagePolicy: create leaves the guest on the old one"
    return tuple(change for change in changes if not _is_image(change.path)), (note,)


def _image_is_unknown(seen: Observed) -> bool:
    """A container that somebody else made does not say which of our images it is from: unknown is not changed."""
    image = seen.spec.get("image")
    return seen.id.kind == "Container" and not (isinstance(image, Mapping) and "identity" in image)


def _verdict(
    want: Desired, seen: Observed, changes: tuple[Change, ...], notes: tuple[str, ...], table: Table, reason: str
) -> Step:
    """Which verb these changes come to."""
    judged = tuple(effect_of(change, want.id.kind, seen.power, table) for change in changes)
    effect = worst(judged)
    if effect in (Effect.IMPOSSIBLE, Effect.UNKNOWN):
        culprit = next(change for change in judged if change.effect is effect)
        return replace(_hold(want, f"{culprit.field}: {culprit.note}"), effect=effect, changes=judged)
    if effect is Effect.REPLACE and (want.spec.get("protect") or (seen.applied or {}).get("protect")):
        return replace(_hold(want, "it would have to be replaced, and is protected"), effect=effect, changes=judged)
    if effect is Effect.REPLACE:
        return _step(want, Verb.REPLACE, effect, reason, judged, ())  # made from the image of today: no note
    if effect is Effect.RESTART and want.spec.get("power") == Power.STOPPED:
        return _step(want, Verb.UPDATE, Effect.STOP, reason, judged, notes)  # it goes down and stays down
    if effect is Effect.RESTART:
        return _step(want, Verb.RESTART, effect, reason, judged, notes)
    return _step(want, Verb.UPDATE, effect, reason, judged, notes)


def _step(
    want: Desired, verb: Verb, effect: Effect, reason: str, changes: tuple[Change, ...], notes: tuple[str, ...]
) -> Step:
    told = (*notes, *_later_notes(want)) if verb is not Verb.NOOP else notes
    return Step(want.id, want.backend, verb, reason, effect, changes, notes=told)


def _later_notes(want: Desired) -> tuple[str, ...]:
    """What of it is recorded and has no effect yet; said whenever there is something to do."""
    found = (field for field, idle in LATER_FIELDS.get(want.id.kind, {}).items() if want.spec.get(field, idle) != idle)
    return tuple(f"{field}: recorded, and not acted upon by this version" for field in found)


def _hold(want: Desired, reason: str) -> Step:
    return Step(want.id, want.backend, Verb.HOLD, reason)


def _is_image(path: tuple[str, ...]) -> bool:
    """``image.…``, ``boot.image.…`` and ``disks.NAME.image.…``."""
    return (
        path[:1] == ("image",) or path[:2] == ("boot", "image") or (path[:1] == ("disks",) and path[2:3] == ("image",))
    )


def _same_record(wanted: Spec, applied: Spec | None) -> bool:
    """Whether our last apply recorded exactly this (images apart: a guest may stay on its old one)."""
    return applied is not None and (wanted == applied or _without_images(wanted) == _without_images(applied))


def _without_images(spec: Spec) -> dict[str, object]:
    plain = {key: value for key, value in spec.items() if key != "image"}
    for key in ("boot", "disks"):
        if isinstance(part := plain.get(key), Mapping):
            plain[key] = {
                name: {k: v for k, v in value.items() if k != "image"} if isinstance(value, Mapping) else value
                for name, value in part.items()
                if name != "image"
            }
    return plain


def _is_ours(seen: Observed, environment: str) -> bool:
    return seen.owned and seen.environment in (environment, None)


def _whose(seen: Observed) -> str:
    return f'it belongs to environment "{seen.environment}"' if seen.owned else "it exists, not made by us"


def _held_by_needs(
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
                steps[id] = _hold(chosen[id], f"waits for {need}, which is held")
                break
        return steps[id]

    for id in decided:
        settle(id)
    return steps


def _leftovers(environment: str, desired: Mapping[ResourceId, Desired], world: World) -> Iterator[Observed]:
    """What bears this environment's mark and is no longer declared, in backends that answered."""
    renamed = {want.renamed_from for want in desired.values() if want.renamed_from and want.renamed_from not in desired}
    kept = {want.id for want in desired.values()} | renamed
    for seen in world:
        if world.problem(seen.backend) is not None or seen.id in kept or seen.id.kind == "Host":
            continue
        if seen.owned and seen.environment == environment:
            yield seen


def _pruned(seen: Observed) -> Step:
    applied = seen.applied or {}
    if (unknown := _unanswering(seen)) is not None:
        return Step(seen.id, seen.backend, Verb.HOLD, f"no longer declared, but not known: {unknown}")
    if applied.get("protect"):
        return Step(seen.id, seen.backend, Verb.HOLD, "no longer declared, but protected")
    if applied.get("deletionPolicy") == "retain":
        return Step(seen.id, seen.backend, Verb.NOOP, "no longer declared; retained (deletionPolicy: retain)")
    return Step(seen.id, seen.backend, Verb.DELETE, "no longer declared", _delete_effect(seen))


def _deleted(environment: str, id: ResourceId, home: str | None, world: World, options: PlanOptions) -> Step:
    homes = (home,) if home is not None else tuple(world.snapshots)
    seen = next((found for name in homes if (found := world.find(name, id)) is not None), None)
    if seen is None:
        unknown = [problem for name in homes if (problem := world.problem(name))]
        if unknown:
            return Step(id, home or "", Verb.HOLD, f"not known: {unknown[0].summary}")
        return Step(id, home or "", Verb.NOOP, "it does not exist")
    applied = seen.applied or {}
    if not _is_ours(seen, environment):
        # An image that another environment made is used as it is; so there was nothing of ours to take away.
        verb = Verb.NOOP if id.kind == "Image" and seen.owned else Verb.HOLD
        return Step(id, seen.backend, verb, _whose(seen))
    if (unknown_why := _unanswering(seen)) is not None:
        return Step(id, seen.backend, Verb.HOLD, f"not known: {unknown_why}")
    if applied.get("protect"):
        return Step(id, seen.backend, Verb.HOLD, "it is protected")
    if applied.get("deletionPolicy") == "retain" and not options.confirm_delete:
        return Step(id, seen.backend, Verb.NOOP, "retained (deletionPolicy: retain); --confirm-delete deletes it")
    return Step(id, seen.backend, Verb.DELETE, "asked for", _delete_effect(seen))


def _delete_effect(seen: Observed) -> Effect:
    return Effect.STOP if seen.power in (Power.RUNNING, Power.PAUSED) else Effect.LIVE


def _leftover_notes(leftovers: list[Observed]) -> tuple[str, ...]:
    gone = [str(seen.id) for seen in leftovers if (seen.applied or {}).get("deletionPolicy") != "retain"]
    if not gone:
        return ()
    names = ", ".join(gone[:5]) + (" …" if len(gone) > 5 else "")
    return (f"{len(gone)} no longer declared: {names}; --prune deletes what nobody declares",)


def _in_order(steps: Mapping[ResourceId, Step], chosen: Mapping[ResourceId, Desired], world: World) -> tuple[Step, ...]:
    """Fill in ``after``: needs before what needs them; for deletion the other way round. Sorted by name."""
    active = {id for id, step in steps.items() if step.verb not in (Verb.NOOP, Verb.HOLD)}
    users: dict[ResourceId, set[ResourceId]] = {}
    for seen in world:
        for need in seen.needs:
            users.setdefault(need, set()).add(seen.id)
    ordered = []
    for id in sorted(steps):
        step = steps[id]
        before = users.get(id, set()) if step.verb is Verb.DELETE else set(chosen[id].needs) if id in chosen else set()
        ordered.append(replace(step, after=tuple(sorted((before & active) - {id}))))
    return tuple(ordered)


def _guard(steps: tuple[Step, ...], environment: str, world: World, options: PlanOptions) -> Problem | None:
    """The deletion guard: more than max(3, 20 %) of what we own does not go without a word."""
    deletions = [step for step in steps if step.verb is Verb.DELETE]
    owned = sum(1 for seen in world if _is_ours(seen, environment) and seen.id.kind != "Host")
    limit = max(3, owned // 5)
    if options.confirm_delete or len(deletions) <= limit:
        return None
    return Problem(
        f"this plan deletes {len(deletions)} of the {owned} resources we own, more than {limit}",
        subject=f"Environment/{environment}",
        hint="if that is meant, say --confirm-delete",
    )
