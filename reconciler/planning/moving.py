"""PLAN: what moves from one guest to another (a disk, a device, a port) leaves the one before the other gets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler import attachments
from reconciler.model import GUESTS, Change, Desired, ResourceId, Spec, Step, Verb, World

Thing = tuple[str, str]
"""What only one guest can have at a time: ``("Disk", "data")``, ``("PortForward", "tcp 127.0.0.1:80")``."""
Edges = dict[ResourceId, set[ResourceId]]


def moves(steps: Mapping[ResourceId, Step], chosen: Mapping[ResourceId, Desired], world: World) -> Edges:
    """Guest → the guests whose steps must end before it gets what they have now."""
    leaving: dict[Thing, set[ResourceId]] = {}
    for id, step in steps.items():
        if id.kind in GUESTS:
            for thing in _leaving(step, world):
                leaving.setdefault(thing, set()).add(id)
    found: Edges = {}
    for id, step in steps.items():
        if leaving and id.kind in GUESTS:
            before = {other for thing in _arriving(step, chosen.get(id)) for other in leaving.get(thing, ())}
            if before - {id}:
                found[id] = before - {id}
    return found


def with_moves(before: Edges, moved: Edges) -> Edges:
    """Both together. Where two guests exchange things, one of the two orders is left out, always the same."""
    merged = {id: set(needs) for id, needs in before.items()}
    for id in sorted(moved):
        for other in sorted(moved[id]):
            if not reaches(merged, other, id):
                merged.setdefault(id, set()).add(other)
    return merged


def reaches(edges: Edges, start: ResourceId, goal: ResourceId) -> bool:
    """Whether the one waits for the other, however many there are in between."""
    pending, seen = [start], set[ResourceId]()
    while pending:
        id = pending.pop()
        if id == goal:
            return True
        if id not in seen:
            seen.add(id)
            pending += edges.get(id, ())
    return False


def _leaving(step: Step, world: World) -> Iterator[Thing]:
    if step.verb is Verb.DELETE:
        seen = world.find(step.backend, step.id)
        yield from _of_spec(step.id.kind, seen.spec if seen is not None else {})
    elif step.verb is not Verb.HOLD:
        yield from _of_changes(step.id.kind, (one for one in step.changes if one.op != "add"), old=True)


def _arriving(step: Step, want: Desired | None) -> Iterator[Thing]:
    if step.verb in (Verb.CREATE, Verb.REPLACE):
        yield from _of_spec(step.id.kind, want.spec if want is not None else {})
    elif step.verb is not Verb.HOLD:
        yield from _of_changes(step.id.kind, (one for one in step.changes if one.op != "remove"), old=False)


def _of_changes(kind: str, changes: Iterator[Change], old: bool) -> Iterator[Thing]:
    for change in changes:
        entry = change.old if old else change.new
        if len(change.path) == 2 and isinstance(entry, Mapping):
            yield from _of_spec(kind, {change.path[0]: {change.path[1]: entry}})


def _of_spec(kind: str, spec: Spec) -> Iterator[Thing]:
    disks: Mapping[str, Any] = spec.get("disks") or {}
    yield from (("Disk", one["disk"]) for one in disks.values() if "disk" in one)
    for id, entry in attachments.carried(kind, spec):
        if id.kind == "PortForward":
            where = attachments.listener(kind, entry)
            yield "PortForward", f"{where.protocol} {where.listen}"
        elif id.kind == "Device":
            yield "Device", id.name
