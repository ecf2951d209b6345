"""PLAN: changes → what they do to this very guest, which verb they come to, and whether they may happen at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from reconciler.effects import Table, effect_of, plugs, worst
from reconciler.model import Change, Desired, Effect, Observed, Power, Step, Verb
from reconciler.planning.asked import Asked, hold
from reconciler.planning.comparing import same_record
from reconciler.planning.waiting import Changes, given, split, told, who_says

Notes = tuple[str, ...]


def verdict(asked: Asked, want: Desired, seen: Observed, changes: Changes, notes: Notes, reason: str) -> Step:
    """Which verb these changes come to; what ``updatePolicy`` does not let happen waits."""
    judged = _judged(want, seen, changes, asked.table(want.backend))
    effect = worst(judged)
    if effect in (Effect.IMPOSSIBLE, Effect.UNKNOWN):
        culprit = next(change for change in judged if change.effect is effect)
        return _held(want, f"{culprit.field}: {culprit.note}", effect, judged)
    now, waiting = split(want, judged, seen.power, asked.options.allow, asked.options.unattended)
    effect = worst(now)
    if any(change.path == ("metadata", "name") for change in waiting):
        why = f"renaming it restarts it, which {who_says(want)} does not let happen"
        return _held(want, f"{why}; --allow restart does, for once", worst(waiting), judged)
    if effect is Effect.REPLACE and _says(want, seen, "protect", True):
        return _held(want, "it would have to be replaced, and is protected", effect, judged)
    if (why_not := _keeps_data(want, seen, now)) is not None:
        return _held(want, why_not, effect, judged)
    if not now:
        return told(settled(given(want, waiting), seen, notes), waiting)
    return told(_changing(want, effect, now, notes, reason), waiting)


def settled(want: Desired, seen: Observed, notes: Notes) -> Step:
    """No field is to be changed: is there anything else to do?"""
    if seen.pending:
        return step(want, Verb.UPDATE, Effect.LIVE, f"the last apply did not finish: {seen.pending}", (), notes)
    if not same_record(want, seen):
        recorded = Change("change", ("recorded",), None, "as declared", Effect.LIVE, "nothing but our record changes")
        return step(want, Verb.UPDATE, Effect.LIVE, "what is declared was never recorded", (recorded,), notes)
    return step(want, Verb.NOOP, Effect.NONE, "as declared", (), notes)


def step(want: Desired, verb: Verb, effect: Effect, reason: str, changes: Changes, notes: Notes) -> Step:
    """The step that does this to it."""
    return Step(want.id, want.backend, verb, reason, effect, changes, notes=notes)


def _changing(want: Desired, effect: Effect, now: Changes, notes: Notes, reason: str) -> Step:
    if effect is Effect.REPLACE:
        return step(want, Verb.REPLACE, effect, reason, now, ())  # made from the image of today: no note
    if effect is Effect.RESTART and want.spec.get("power") == Power.STOPPED:
        return step(want, Verb.UPDATE, Effect.STOP, reason, now, notes)  # it goes down and stays down
    if effect is Effect.RESTART:
        return step(want, Verb.RESTART, effect, reason, now, notes)
    return step(want, Verb.UPDATE, effect, reason, now, notes)


def _judged(want: Desired, seen: Observed, changes: Changes, table: Table) -> Changes:
    kind = want.id.kind
    known = (effect_of(change, kind, seen.power, table, seen.rules) for change in changes)
    return tuple(_destroying(change, seen) for change in _within_room(known, kind, seen, table))


def _within_room(judged: Iterable[Change], kind: str, seen: Observed, table: Table) -> Iterator[Change]:
    """A running guest takes what it has free ports for; a restart gives it more."""
    free = seen.room
    for change in judged:
        needs_none = change.effect is not Effect.LIVE or not plugs(change, kind, table, seen.rules)
        if free is None or needs_none or seen.power is Power.STOPPED:
            yield change
        elif free > 0:
            free -= 1
            yield change
        else:
            taken = f"all {seen.room} free PCIe ports are taken" if seen.room else "no PCIe port is free"
            yield replace(change, effect=Effect.RESTART, note=f"{taken}: it gets more at its next start")


def _destroying(change: Change, seen: Observed) -> Change:
    """A disk of the VM's own goes with what is on it; one by path, and a Disk, stay."""
    if seen.id.kind != "VirtualMachine" or change.path[:1] != ("disks",) or len(change.path) < 2:
        return change
    gone = change.op == "remove" and len(change.path) == 2
    exchanged = change.op == "add" and change.path[2:] in (("disk",), ("path",))
    once: dict[str, Any] = {}
    for spec in (seen.spec, seen.applied or {}):
        once |= (spec.get("disks") or {}).get(change.path[1]) or {}
    if not (gone or exchanged) or "disk" in once or "path" in once:
        return change
    words = "its data is deleted"
    return replace(change, note=f"{words}; {change.note}" if change.note else words, destroys=True)


def _keeps_data(want: Desired, seen: Observed, now: Changes) -> str | None:
    """Why a disk's data must not go; None when it may, or when none goes."""
    destroyed = next((change.path[1] for change in now if change.destroys), None)
    if destroyed is None:
        return None
    for field, value in (("protect", True), ("deletionPolicy", "retain")):
        if _says(want, seen, field, value):
            words = f"{field}: {str(value).lower()}"
            way_out = f"keep the disk, or first apply without {words}"
            return f'its disk "{destroyed}" would be deleted with its data ({words}): {way_out}'
    return None


def _says(want: Desired, seen: Observed, field: str, value: object) -> bool:
    """Whether the manifest, or the last one that was applied, says so."""
    return value in (want.spec.get(field), (seen.applied or {}).get(field))


def _held(want: Desired, reason: str, effect: Effect, judged: Changes) -> Step:
    return replace(hold(want, reason), effect=effect, changes=judged)
