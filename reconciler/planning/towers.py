"""PLAN: what lives in an LXD inside of a VM that this very plan brings up or down: nobody can tell what is there then.

With a VM that is made anew nothing is there, so it is all to be made. With one that comes up again the answer has to
wait: such a step says what it awaits, and whoever carries the plan out looks again once that has ended well. What runs
in a VM that goes down and comes back goes down with it, and is started by us once what it needs is there again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.model import GUESTS, Desired, Effect, Power, ResourceId, Step, Verb, World, lxd_backend
from reconciler.planning.asked import hold
from reconciler.planning.judging import step


def with_towers(
    desired: Mapping[ResourceId, Desired], decided: Mapping[ResourceId, Step], world: World
) -> dict[ResourceId, Step]:
    """The same steps, those anew whose VM is not up, or will not be for a while."""
    machines = machines_of(desired)
    steps = dict(decided)
    for id, want in desired.items():
        vm = machines.get(want.backend)
        if vm is None or vm not in decided or vm not in desired:
            continue
        if world.problem(want.backend) is not None:
            steps[id] = _inside(want, decided[vm], desired[vm], world) or decided[id]
        elif id.kind != "Host":
            steps[id] = _going_down(want, decided[id], decided[vm], desired[vm])
    return steps


def machines_of(desired: Mapping[ResourceId, Desired]) -> dict[str, ResourceId]:
    """Backend → the VM that its LXD is in; a declared Host is what it says, whatever a VM is called."""
    found = {
        lxd_backend(id.name): id
        for id, want in desired.items()
        if id.kind == "VirtualMachine" and want.spec.get("lxd") and ResourceId("Host", id.name) not in desired
    }
    for id, want in desired.items():
        if id.kind == "Host" and (name := want.spec["lxd"].get("virtualMachine")):
            found[lxd_backend(id.name)] = ResourceId("VirtualMachine", name)
    return found


def _going_down(want: Desired, own: Step, first: Step, machine: Desired) -> Step:
    """The step of something inside of a VM that runs now."""
    if first.verb in (Verb.UPDATE, Verb.RESTART) and machine.spec.get("power") == Power.STOPPED:
        return hold(want, f"{machine.id} is stopped, as declared")
    if first.verb is Verb.REPLACE:
        return replace(hold(want, f"goes with {machine.id}: made anew once that is up"), awaits=first.id)
    runs = want.id.kind in GUESTS and want.spec.get("power", Power.RUNNING) != Power.STOPPED
    if first.verb is Verb.RESTART and runs and own.verb in (Verb.NOOP, Verb.UPDATE, Verb.RESTART):
        words = f"goes down with {machine.id}, and is started once that is up"
        return replace(own, verb=Verb.HOLD, effect=Effect.RESTART, reason=words, awaits=first.id)
    return own


def _inside(want: Desired, first: Step, machine: Desired, world: World) -> Step | None:
    """The step of something inside, when the VM's own step is ``first``; None when that explains nothing."""
    power = machine.spec.get("power", Power.RUNNING)
    if power != Power.RUNNING:
        return hold(want, f"{machine.id} is {power}, as declared")
    if first.verb is Verb.HOLD:
        return hold(want, f"waits for {machine.id}, which is held")
    if first.verb is Verb.NOOP:
        return None
    if want.id.kind == "Host":
        return Step(want.id, want.backend, Verb.NOOP, f"comes with {machine.id}")
    if first.verb is Verb.CREATE and not _brings_data(machine, world):
        return step(want, Verb.CREATE, Effect.LIVE, f"{machine.id} is new, and nothing in it yet", (), ())
    return replace(hold(want, f"known once {machine.id} is up: apply goes on then"), awaits=machine.id)


def _brings_data(machine: Desired, world: World) -> bool:
    """Whether a Disk that is there already will be attached to it: who knows what is on that."""
    disks = (disk.get("disk") for disk in machine.spec.get("disks", {}).values())
    return any(world.find(machine.backend, ResourceId("Disk", name)) is not None for name in disks if name)
