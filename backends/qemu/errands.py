"""APPLY, one level below the backend's face: who answers for which kind. Imported only when something is to be done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reconciler.backends.qemu import process
from reconciler.backends.qemu.apply import Machines
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.disks import Disks
from reconciler.backends.qemu.folders import Folder, all_folders, locked
from reconciler.backends.qemu.grace import Grace
from reconciler.backends.qemu.images import Images
from reconciler.backends.qemu.inside import disks
from reconciler.backends.qemu.inside.disks import PREFIX
from reconciler.backends.qemu.machine import Drive
from reconciler.backends.qemu.prepare import Store
from reconciler.backends.qemu.records import Record, load
from reconciler.model import Desired, Step
from reconciler.ports import Settings, Tell
from reconciler.problems import Problem, Refused

_LOCK_PATIENCE = 30.0


def machines(settings: Settings, grace: Grace) -> Machines:
    """The VMs of these settings."""
    return Machines(settings, Store(settings.state, Images(settings.state), Disks(settings.state)), grace)


def carry_out(machines: Machines, step: Step, desired: Desired | None, tell: Tell) -> None:
    """One step, by whoever answers for its kind."""
    settings = machines.settings
    if step.id.kind == "VirtualMachine":
        machines.apply(step, desired, tell)
    elif step.id.kind == "Disk":
        Disks(settings.state).apply(
            step,
            desired,
            settings.environment,
            lambda name, size: grow_live(settings, name, size),
            lambda name, size: grow_inside(settings, name, size, tell),
        )
    elif step.id.kind == "Image":
        Images(settings.state).apply(step, desired, settings.environment, tell)
    else:
        raise Refused(Problem(f"QEMU does not know the kind {step.id.kind}", subject=str(step.id)))


def grow_live(settings: Settings, name: str, size: int) -> bool:
    """Have the QEMU that uses this Disk grow it; False when none does."""
    for folder, record, mine in _users(settings, name):
        with Monitor(folder.qmp, record.id) as monitor:
            monitor.execute("block_resize", {"node-name": Drive(mine, Path(), "raw").node, "size": size})
        return True
    return False


def grow_inside(settings: Settings, name: str, size: int, tell: Tell) -> None:
    """Have the guest that has mounted this Disk for us use all of it; whoever mounts it later does that by itself."""
    for folder, record, mine in _users(settings, name):
        if f"{PREFIX}{mine}" not in record.mounted:
            continue
        with locked(folder.path, record.id, _LOCK_PATIENCE):
            now = load(folder)
            if now is not None and now.process == record.process and "at" in now.mounted.get(f"{PREFIX}{mine}", {}):
                disks.grow(folder, now, mine, size, tell)


def _users(settings: Settings, name: str) -> Iterator[tuple[Folder, Record, str]]:
    """The machines that run and have this Disk, and what they call it."""
    for folder in all_folders(settings.state, settings.runtime):
        record = load(folder)
        declared = (record.applied or {}).get("disks", {}) if record is not None else {}
        mine = next((key for key, disk in declared.items() if disk.get("disk") == name), None)
        if record is not None and mine is not None and process.find(folder, record) is not None:
            yield folder, record, mine
