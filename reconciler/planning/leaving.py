"""PLAN: what goes: leftovers that prune finds, and what somebody asks to be deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler import attachments
from reconciler.model import ATTACHMENTS, Change, Desired, Effect, Observed, Power, ResourceId, Step, Verb
from reconciler.planning.asked import Asked, hold, unanswering, whose
from reconciler.planning.judging import verdict

Targets = dict[ResourceId, str | None]
"""What somebody wants gone → the backend it lives in, where that is known."""


def leftovers(asked: Asked, desired: Mapping[ResourceId, Desired]) -> Iterator[Observed]:
    """What bears this environment's mark and is no longer declared, in backends that answered."""
    renamed = {want.renamed_from for want in desired.values() if want.renamed_from and want.renamed_from not in desired}
    kept = {want.id for want in desired.values()} | renamed
    for seen in asked.world:
        if asked.world.problem(seen.backend) is not None or seen.id in kept or seen.id.kind == "Host":
            continue
        if seen.owned and seen.environment == asked.environment:
            yield seen


def leftover_notes(left: list[Observed]) -> tuple[str, ...]:
    """What prune would delete, in one note."""
    gone = [str(seen.id) for seen in left if (seen.applied or {}).get("deletionPolicy") != "retain"]
    if not gone:
        return ()
    names = ", ".join(gone[:5]) + (" …" if len(gone) > 5 else "")
    return (f"{len(gone)} no longer declared: {names}; --prune deletes what nobody declares",)


def pruned(seen: Observed) -> Step:
    """What becomes of a leftover."""
    applied = seen.applied or {}
    if (unknown := unanswering(seen)) is not None:
        return Step(seen.id, seen.backend, Verb.HOLD, f"no longer declared, but not known: {unknown}")
    if applied.get("protect"):
        return Step(seen.id, seen.backend, Verb.HOLD, "no longer declared, but protected")
    if applied.get("deletionPolicy") == "retain":
        return Step(seen.id, seen.backend, Verb.NOOP, "no longer declared; retained (deletionPolicy: retain)")
    return Step(seen.id, seen.backend, Verb.DELETE, "no longer declared", _delete_effect(seen))


def deleted(asked: Asked, id: ResourceId, home: str | None) -> Step:
    """What becomes of one that somebody wants gone. home: the backend it lives in, where that is known."""
    world = asked.world
    homes = (home,) if home is not None else tuple(world.snapshots)
    seen = next((found for name in homes if (found := world.find(name, id)) is not None), None)
    if seen is None:
        return _not_there(asked, id, home, homes)
    applied = seen.applied or {}
    if not asked.is_ours(seen):
        # An image that another environment made is used as it is; so there was nothing of ours to take away.
        verb = Verb.NOOP if id.kind == "Image" and seen.owned else Verb.HOLD
        return Step(id, seen.backend, verb, whose(seen))
    if (unknown := unanswering(seen)) is not None:
        return Step(id, seen.backend, Verb.HOLD, f"not known: {unknown}")
    if applied.get("protect"):
        return Step(id, seen.backend, Verb.HOLD, "it is protected")
    if applied.get("deletionPolicy") == "retain" and not asked.options.confirm_delete:
        return Step(id, seen.backend, Verb.NOOP, "retained (deletionPolicy: retain); --confirm-delete deletes it")
    return Step(id, seen.backend, Verb.DELETE, "asked for", _delete_effect(seen))


def _not_there(asked: Asked, id: ResourceId, home: str | None, homes: tuple[str, ...]) -> Step:
    unknown = [problem for name in homes if (problem := asked.world.problem(name))]
    if unknown:
        return Step(id, home or "", Verb.HOLD, f"not known: {unknown[0].summary}")
    return Step(id, home or "", Verb.NOOP, "it does not exist")


def _delete_effect(seen: Observed) -> Effect:
    return Effect.STOP if seen.power in (Power.RUNNING, Power.PAUSED) else Effect.LIVE


def taken_out(
    asked: Asked, ids: Targets, going: Mapping[ResourceId, Step]
) -> tuple[dict[ResourceId, Step], dict[ResourceId, Desired]]:
    """Attachments that somebody wants gone: steps on their guests, and what these are carried out with.

    going: the steps of what is deleted in the same plan; a guest among them takes its attachments along, or keeps them
    """
    guests = sorted(asked.world, key=lambda seen: (seen.id, seen.backend))
    carriers = {id: [seen for seen in guests if _carries(seen, id)] for id in ids}
    ours = {id: [seen for seen in found if asked.is_ours(seen)] for id, found in carriers.items()}
    steps: dict[ResourceId, Step] = {}
    wanted: dict[ResourceId, Desired] = {}
    for seen in {one.id: one for found in ours.values() for one in found if one.id not in going}.values():
        gone = [id for id in ids if seen in ours[id]]
        wanted[seen.id] = _desired_without(seen, gone)
        steps[seen.id] = _taking_out(asked, wanted[seen.id], seen, gone)
    for id, home in ids.items():
        homes = (home,) if home is not None else tuple(asked.world.snapshots)
        if carriers[id]:
            steps[id] = _of_attachment(id, carriers[id], ours[id], {**going, **steps})
        else:
            steps[id] = _not_there(asked, id, home, homes)
    return steps, wanted


def _carries(seen: Observed, id: ResourceId) -> bool:
    return any(
        attachments.entry(seen.id.kind, spec, id) is not None
        for spec in (seen.spec, seen.applied or {})
        if seen.id.kind in ("VirtualMachine", "Container")
    )


def _desired_without(seen: Observed, gone: list[ResourceId]) -> Desired:
    """What our last apply set, without these; nothing else about the guest is touched, its power neither."""
    spec, kind = dict(seen.applied or {}), seen.id.kind
    later = dict(seen.later) if seen.later is not None else None
    for id in gone:
        spec = attachments.without(kind, spec, id)
        later = attachments.without(kind, later, id) if later is not None else None
    if seen.power is not None:
        spec["power"] = (Power.STOPPED if seen.power is Power.ERROR else seen.power).value
    return Desired(seen.id, seen.backend, spec, seen.needs, later=later)


def _taking_out(asked: Asked, want: Desired, seen: Observed, gone: list[ResourceId]) -> Step:
    if (unknown := unanswering(seen)) is not None:
        return hold(want, f"not known: {unknown}")
    kind = seen.id.kind
    entries = [(attachments.place(kind, id), attachments.entry(kind, seen.spec, id)) for id in gone]
    changes = tuple(Change("remove", place, entry, None) for place, entry in entries if entry is not None)
    return verdict(asked, want, seen, changes, (), "asked for")


def _of_attachment(
    id: ResourceId, carriers: list[Observed], ours: list[Observed], steps: Mapping[ResourceId, Step]
) -> Step:
    if not ours:
        return Step(id, carriers[0].backend, Verb.HOLD, f"{carriers[0].id} has it: {whose(carriers[0])}")
    backend = ours[0].backend
    held = next((seen.id for seen in ours if steps[seen.id].verb is Verb.HOLD), None)
    if held is not None:
        return Step(id, backend, Verb.HOLD, f"{held} is held")
    words = [_leaving(steps[seen.id]) for seen in ours]
    return Step(id, backend, Verb.NOOP, ", ".join(words))


def _leaving(guest: Step) -> str:
    if guest.verb is Verb.DELETE:
        return f"goes with {guest.id}"
    if guest.waiting:
        return f"leaves {guest.id} when it restarts"
    return f"stays with {guest.id}, which is kept" if guest.verb is Verb.NOOP else f"is taken out of {guest.id}"


def split_targets(targets: Mapping[ResourceId, str | None]) -> tuple[Targets, Targets]:
    """What has an object of its own, and what has none."""
    objects = {id: home for id, home in targets.items() if id.kind not in ATTACHMENTS}
    return objects, {id: home for id, home in sorted(targets.items()) if id.kind in ATTACHMENTS}
