"""OBSERVE: the network cards that are plugged in, with the model and the address that they really have."""

from __future__ import annotations

from typing import Any

from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.machine import mac_of
from reconciler.backends.qemu.plugging.nics import PREFIX
from reconciler.backends.qemu.records import Record
from reconciler.problems import Refused


def questions(record: Record) -> dict[str, Command]:
    """Each card's address."""
    paths = {nic: f"/machine/peripheral/{PREFIX}{nic}" for nic in (record.applied or {}).get("nics", {})}
    return {f"mac-{nic}": ("qom-get", {"path": path, "property": "mac"}) for nic, path in paths.items()}


def read(view: View) -> Reading:
    """The declared cards that are there."""
    nics: dict[str, Any] = {}
    for name, nic in view.declared("nics").items():
        driver = view.devices.get(f"{PREFIX}{name}")
        if driver is None:
            continue
        nics[name] = {**nic, "model": driver}
        mac = view.answers[f"mac-{name}"]
        if not isinstance(mac, Refused) and ("mac" in nic or mac != mac_of(view.record.birth, name, nic)):
            nics[name]["mac"] = mac
    return Reading({"nics": nics or None})
