"""APPLY: ``Device``: what the host has and what QEMU emulates, plugged in and out: one module a way of naming it.

A device of the host that may come and go (USB, a device node) is waited for while it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from reconciler.backends.qemu.plugging import emulated, nodes, usb, vfio
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.records import Record
from reconciler.model import Json, Spec

SECTION, PREFIX = "devices", "device-"
_WAYS: Mapping[str, ModuleType] = {"usb": usb, "unix": nodes, "pci": vfio, "gpu": vfio, "emulate": emulated}


def declared(live: Live) -> Mapping[str, Spec]:
    """By name."""
    found: Mapping[str, Spec] = live.spec.get(SECTION, {})
    return found


def part_of(live: Live, name: str, device: Spec) -> Json:
    """What QEMU is told, and what stands behind it; ``device`` is None while the host does not have it."""
    return part(name, device, live.subject)


def part(name: str, device: Spec, subject: str) -> dict[str, Json]:
    """The same, without a machine at hand."""
    way = way_of(device)
    return {"way": way, **_WAYS[way].part_of(device[way], subject, f"{SECTION}.{name}.{way}")}


def way_of(device: Spec) -> str:
    """By what it is named: usb, unix, pci, gpu or emulate."""
    return next(iter(device))


def check(devices: Mapping[str, Spec], subject: str) -> None:
    """Refused, naming the field, when one of them can be seen not to be had; nothing is touched."""
    for name, device in devices.items():
        way = way_of(device)
        field = f"{SECTION}.{name}.{way}"
        if way in ("pci", "gpu"):
            vfio.check(str(device[way]), subject, field, gpu=way == "gpu")
        elif way == "unix":
            nodes.check(str(device[way]), subject, field)
        else:
            part(name, device, subject)


def is_whole(live: Live, name: str) -> bool:
    """Whether QEMU can have what is behind it."""
    return is_well(live.record.plugged[f"{PREFIX}{name}"], live.record)


def is_well(part: Json, record: Record) -> bool:
    """The same, for whoever only looks."""
    return bool(_WAYS[part["way"]].is_whole(part, record))


def plug(live: Live, name: str, part: Json) -> None:
    """What stands behind it, then the device."""
    if part["device"] is None:
        live.tell(f"waiting for {name}")
        return
    id, way = f"{PREFIX}{name}", _WAYS[part["way"]]
    device = {**part["device"], **way.open_behind(live, id, part), "id": id}
    if way.is_usb(part):
        usb.attach(live, device)
    else:
        live.plug(device)


def unplug(live: Live, name: str, part: Json) -> None:
    """The device, then what stood behind it."""
    id = f"{PREFIX}{name}"
    live.unplug(id)
    if part["device"] is not None:
        _WAYS[part["way"]].close_behind(live, id, part)


def let_go(record: Record) -> None:
    """Take back what was given to a QEMU that is no more."""
    for id, part in record.plugged.items():
        if id.startswith(PREFIX) and part["device"] is not None:
            _WAYS[part["way"]].let_go(record, id, part)
