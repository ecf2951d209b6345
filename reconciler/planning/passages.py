"""PLAN: what a VM that runs passes on to the containers in it: who lets go first, and who is looked at once more.

A share, disk, device or port of such a container stands in the VM's step and in its own. What comes, comes from the VM
to the container; what goes, goes the other way, because a VM cannot let go of a disk that a container has mounted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from reconciler import attachments
from reconciler.attachments import Place
from reconciler.model import Observed, ResourceId, Step, Verb, World
from reconciler.planning.moving import Edges, reaches
from reconciler.planning.waiting import told

_IDLE = frozenset({Verb.NOOP, Verb.HOLD})


def with_passages(steps: Mapping[ResourceId, Step], world: World) -> dict[ResourceId, Step]:
    """The same steps; those that hang on what a VM has anew, or that a container must let go of first, say so."""
    found = dict(steps)
    for seen, machine in _inhabitants(steps, world):
        first, own = found[machine], found[seen.id]
        if first.verb is not Verb.UPDATE or own.verb is Verb.HOLD:
            continue
        anew = sorted(_origins(seen) & _coming(first) - _leaving(own, seen))
        if anew:
            note = f"{', '.join(name for _, name in anew)}: plugged in again where {machine} has it anew"
            found[seen.id] = replace(own, awaits=machine, notes=(*own.notes, note))
        elif own.awaits is None and _is_mixed(first, own, seen):
            found[machine] = _postponed(first, own, seen)
    return found


def letting_go(before: Edges, steps: Mapping[ResourceId, Step], world: World) -> Edges:
    """The order, but a container lets go of what its VM loses before the VM does, where nothing speaks against it."""
    found = {id: set(needs) for id, needs in before.items()}
    for seen, machine in _inhabitants(steps, world):
        first, own = steps[machine], steps[seen.id]
        if {first.verb, own.verb} & _IDLE or not _leaving(own, seen) & _going(first):
            continue
        if own.verb is not Verb.DELETE and (first.verb is not Verb.UPDATE or _is_mixed(first, own, seen)):
            continue
        without = {**found, seen.id: found.get(seen.id, set()) - {machine}}
        if not reaches(without, seen.id, machine):
            found = without
            found.setdefault(machine, set()).add(seen.id)
    return found


def _inhabitants(steps: Mapping[ResourceId, Step], world: World) -> Iterator[tuple[Observed, ResourceId]]:
    """The containers in VMs, both of which have a step."""
    for seen in sorted(world, key=lambda one: (one.id, one.backend)):
        machine = attachments.machine_of(seen)
        if machine is not None and machine in steps and seen.id in steps and steps[seen.id].backend == seen.backend:
            yield seen, machine


def _origins(seen: Observed) -> set[Place]:
    """What the container has from its VM, as the VM calls it."""
    names = seen.spec.get("devices") or {}
    return {place for name in names if (place := attachments.origin(name)) is not None}


def _coming(first: Step) -> set[Place]:
    """What the VM has anew, or otherwise, after its step."""
    return {_place(change.path) for change in first.changes if len(change.path) > 1} - _going(first)


def _going(first: Step) -> set[Place]:
    return {_place(change.path) for change in first.changes if change.op == "remove" and len(change.path) == 2}


def _leaving(own: Step, seen: Observed) -> set[Place]:
    """What the container has no more after its step."""
    if own.verb is Verb.DELETE:
        return _origins(seen)
    gone = (change.path for change in own.changes if change.op == "remove" and len(change.path) == 2)
    return {place for path in gone if path[0] == "devices" and (place := attachments.origin(path[1])) is not None}


def _is_mixed(first: Step, own: Step, seen: Observed) -> bool:
    """Whether it both loses something with its VM, and gets something that the VM has to have first."""
    touched = (change.path for change in own.changes if change.path[0] == "devices" and len(change.path) > 1)
    gets = {place for path in touched if (place := attachments.origin(path[1])) is not None} - _leaving(own, seen)
    return bool(gets & _coming(first)) and bool(_leaving(own, seen) & _going(first))


def _postponed(first: Step, own: Step, seen: Observed) -> Step:
    """The VM's step without the disks that the container has to let go of first: these go in a further round."""
    disks = {place for place in _leaving(own, seen) & _going(first) if place[0] == "disks"}
    if not disks:
        return first  # everything else can be taken from under whoever uses it
    later = [change for change in first.changes if len(change.path) > 1 and _place(change.path) in disks]
    waiting = tuple(replace(change, note=f"goes once {own.id} has let go of it") for change in later)
    now = tuple(change for change in first.changes if change not in later)
    return replace(told(replace(first, changes=now), waiting), awaits=own.id)


def _place(path: tuple[str, ...]) -> Place:
    return path[0], path[1]
