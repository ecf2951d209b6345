"""OBSERVE, one level below the backend's face: everything of ours on this host, each kind from whoever knows it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from reconciler.backends.qemu.disks import Disks
from reconciler.backends.qemu.folders import all_folders, folder_of
from reconciler.backends.qemu.images import Images
from reconciler.backends.qemu.observe import observe
from reconciler.backends.qemu.records import load
from reconciler.model import QEMU, Condition, Observed, Power, ResourceId
from reconciler.ports import Settings
from reconciler.problems import BackendError


def survey(settings: Settings, only: Collection[ResourceId] | None) -> dict[ResourceId, Observed]:
    """Everything of ours on this host, or ``only`` these."""
    disks, images = Disks(settings.state), Images(settings.state)
    folders = [
        folder
        for folder in all_folders(settings.state, settings.runtime)
        if only is None or ResourceId("VirtualMachine", folder.name) in only
    ]
    found = [*observe(folders, _stored(disks))]
    for kind, room in (("Disk", disks), ("Image", images)):
        asked = [name for name in room.names() if only is None or ResourceId(kind, name) in only]
        found += [seen for name in asked if (seen := _look(kind, name, room.observe))]
    return {seen.id: seen for seen in found}


def probe(settings: Settings, observed: Observed) -> tuple[Condition, ...]:
    """The readiness conditions of a VM, each tried once."""
    from reconciler.backends.qemu import readiness

    ready = observed.spec.get("ready", {})
    if observed.id.kind != "VirtualMachine" or not readiness.is_wanted(ready):
        return ()
    if observed.power is not Power.RUNNING:
        return (Condition("Ready", None, "NotRunning", "it is not running"),)
    folder = folder_of(settings.state, settings.runtime, observed.id.name)
    record = load(folder)
    if record is None:
        return ()
    return readiness.conditions(readiness.Guest(folder, record, str(observed.id), readiness.PATIENCE), ready)


def _look(kind: str, name: str, look: Callable[[str], Observed | None]) -> Observed | None:
    """One disk or image; what cannot be told of it concerns no other."""
    try:
        return look(name)
    except BackendError as error:
        unknown = Condition("Answering", False, type(error).__name__, error.problem.summary)
        return Observed(ResourceId(kind, name), QEMU, {}, conditions=(unknown,))


def _stored(disks: Disks) -> dict[str, tuple[Path, str]]:
    found: dict[str, tuple[Path, str]] = {}
    for name in disks.names():
        try:
            found[name] = disks.locate(name)
        except BackendError:
            continue  # its own observation says what is wrong with it
    return found
