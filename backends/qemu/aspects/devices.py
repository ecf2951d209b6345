"""OBSERVE: the devices that are plugged in, and those of the host's that are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.backends.host import usb as host_usb
from reconciler.backends.qemu import rights
from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.plugging import devices, usb
from reconciler.backends.qemu.records import Record
from reconciler.model import Condition, Json, Spec
from reconciler.problems import Refused

_COMES_AND_GOES = ("usb", "unix")
CONDITION = "Devices"


def questions(record: Record) -> dict[str, Command]:
    """Whether QEMU has got hold of the USB devices that it looks for."""
    paths = {
        name: f"/machine/peripheral/{devices.PREFIX}{name}"
        for name, device in (record.applied or {}).get(devices.SECTION, {}).items()
        if devices.way_of(device) == "usb"
    }
    return {f"attached-{name}": ("qom-get", {"path": path, "property": "attached"}) for name, path in paths.items()}


def read(view: View) -> Reading:
    """The declared ones that are there as they are to be, and those that only the host has to bring."""
    declared = view.declared(devices.SECTION)
    found: dict[str, Any] = {name: device for name, device in declared.items() if _is_there(view, name, device)}
    waits = [message for name in found for message in _waiting(view, name, found[name])]
    conditions = (Condition(CONDITION, False, "Waiting", "; ".join(waits)),) if waits else ()
    return Reading({devices.SECTION: found or None}, conditions=conditions)


def _is_there(view: View, name: str, device: Spec) -> bool:
    """Plugged in with what the host has now. While the host has nothing, there is nothing to plug in."""
    id = f"{devices.PREFIX}{name}"
    if devices.way_of(device) not in _COMES_AND_GOES:
        return id in view.devices
    part = _part(view, name, device)
    if part is None or part["device"] is None:
        return True
    return id in view.devices and view.record.plugged.get(id) == part and devices.is_well(part, view.record)


def _part(view: View, name: str, device: Spec) -> Json | None:
    """None when it cannot be had at all: the apply that tries says why."""
    try:
        return devices.part(name, device, view.record.id)
    except Refused:
        return None


def _waiting(view: View, name: str, device: Spec) -> Iterator[str]:
    """What to say of one that the guest cannot see, and why."""
    if devices.way_of(device) == "usb":
        if view.answers[f"attached-{name}"] is True:
            return
        there = usb.find(device["usb"])
        if there is None:
            yield f"{name}: this host has no USB device {_words(device['usb'])}"
        elif not rights.is_handed_over(there.node(), view.record):
            yield f"{name}: {there.node()} may not be opened by you: add yourself to its group"
        elif f"{devices.PREFIX}{name}" in view.devices:
            yield f"{name}: QEMU has not got hold of {_place(there)}: it looks every two seconds; another may have it"
    elif devices.way_of(device) == "unix" and (part := _part(view, name, device)) and part["device"] is None:
        yield f"{name}: this host has no {device['unix']}"


def _words(wanted: Spec) -> str:
    if "bus" in wanted:
        return f"at bus {wanted['bus']}, port {wanted['port']}"
    serial = f' with serial number "{wanted["serial"]}"' if "serial" in wanted else ""
    return f"{wanted['vendor']}:{wanted['product']}{serial}"


def _place(one: host_usb.UsbDevice) -> str:
    return f"{one.vendor}:{one.product} at bus {one.bus}, port {one.port}"
