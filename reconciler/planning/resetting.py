"""PLAN: a guest that is to be thrown away and made anew from its image, because somebody asked for it.

What stands for itself (Disks, Volumes) is kept; what is the guest's own goes, and so does what lives in an LXD inside
of it, which is made again by the same apply: see towers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import itemgetter

from reconciler.model import Change, Desired, Effect, Observed, ResourceId, Spec, Step, Verb, World
from reconciler.planning.asked import PlanOptions, hold
from reconciler.planning.judging import step
from reconciler.planning.towers import machines_of

_WORDS = "whatever is in it and on no declared Disk or Volume is deleted"


def made_anew(want: Desired, seen: Observed, confirmed: bool) -> Step:
    """The step; held where the manifest, or the last one that was applied, protects or retains it.

    confirmed: deleting retained data was confirmed
    """
    if why_not := _keeps((want.spec, seen.applied or {}), "it", confirmed):
        return replace(hold(want, why_not), effect=Effect.REPLACE)
    gone = Change("change", ("reset",), None, "asked for", Effect.REPLACE, _WORDS, destroys=True)
    return step(want, Verb.REPLACE, Effect.REPLACE, "asked for", (gone,), _own_disks(seen))


def concerned(id: ResourceId, desired: Mapping[ResourceId, Desired]) -> frozenset[ResourceId]:
    """What a plan that resets this guest is about: the guest, and whatever lives in the LXD inside of it."""
    machines = machines_of(desired)
    return frozenset({id, *(other for other, want in desired.items() if machines.get(want.backend) == id)})


def with_what_is_inside(
    decided: Mapping[ResourceId, Step], desired: Mapping[ResourceId, Desired], world: World, options: PlanOptions
) -> dict[ResourceId, Step]:
    """The same steps; a VM is kept when what lives in the LXD inside of it is protected or retained.

    What does not answer is judged by what is declared: a VM that does not come up any more is the very one to reset.
    """
    steps, machines = dict(decided), machines_of(desired)
    for id in options.reset & decided.keys():
        if steps[id].verb is not Verb.REPLACE:
            continue
        declared = [(want.id, want.spec) for want in desired.values() if machines.get(want.backend) == id]
        there = [(seen.id, seen.applied or {}) for seen in world if id in seen.needs]
        inside = sorted([*declared, *there], key=itemgetter(0))
        reasons = (_keeps((spec,), f"{one} inside of it", options.confirm_delete) for one, spec in inside)
        if why_not := next(filter(None, reasons), None):
            steps[id] = replace(hold(desired[id], why_not), effect=Effect.REPLACE)
    return steps


def _keeps(specs: Iterable[Spec], who: str, confirmed: bool) -> str | None:
    """Why it must not go; None when it may."""
    every = tuple(specs)
    if any(spec.get("protect") is True for spec in every):
        return f"{who} is protected (protect: true)"
    if any(spec.get("deletionPolicy") == "retain" for spec in every) and not confirmed:
        return f"{who} is retained (deletionPolicy: retain); --confirm-delete resets all the same"
    return None


def _own_disks(seen: Observed) -> tuple[str, ...]:
    """What goes and what stays, by name."""
    spec = {**(seen.applied or {}), **seen.spec}
    disks = spec.get("disks") or {}
    own = [name for name, disk in disks.items() if "disk" not in disk and "path" not in disk]
    kept = [f"Disk/{disk['disk']}" for disk in disks.values() if "disk" in disk]
    kept += [f"Volume/{one['source']}" for one in (spec.get("devices") or {}).values() if _is_volume(one)]
    notes = (f"its own disks go: {', '.join(sorted(own))}",) if own else ()
    return (*notes, f"kept: {', '.join(sorted(kept))}") if kept else notes


def _is_volume(device: Mapping[str, object]) -> bool:
    return device.get("type") == "disk" and "pool" in device and "source" in device
