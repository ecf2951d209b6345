"""OBSERVE: the disks that are plugged in, as big and as writable as they really are, and their boot order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.backends.qemu.aspects import mounts
from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.machine import Drive
from reconciler.backends.qemu.plugging.disks import PREFIX
from reconciler.backends.qemu.records import Record

_SECTOR = 512
_DRIVER = "virtio-blk-pci"


def questions(record: Record) -> dict[str, Command]:
    """The block graph in one answer, and each disk's place in the boot order where somebody cares about it."""
    asked: dict[str, Command] = {"blocks": ("query-named-block-nodes", {"flat": True})}
    for name in (record.applied or {}).get("bootOrder", ()):
        device = f"/machine/peripheral/{PREFIX}{name}"
        asked[f"place-{name}"] = ("qom-get", {"path": device, "property": "bootindex"})
    return asked


def files(record: Record) -> list[str]:
    """What the guest has mounted, where it is to mount something."""
    return mounts.files(record)


def read(view: View) -> Reading:
    """The declared disks that are there; and in which order the firmware tries them."""
    found = mounts.mounted(view, live_disks(view.declared("disks"), view.devices, view.answers["blocks"]))
    fields: dict[str, Any] = {"disks": found or None}
    if order := view.spec.get("bootOrder"):
        places = {name: view.answers[f"place-{name}"] for name in order}
        there = [name for name in order if isinstance(places[name], int)]
        fields["bootOrder"] = sorted(there, key=lambda name: places[name])
    return Reading(fields, conditions=mounts.conditions(view, found))


def live_disks(declared: Mapping[str, Any], devices: Mapping[str, str], nodes: Sequence[Any]) -> dict[str, Any]:
    """The declared disks that are plugged in, with the size and the right to write that they really have."""
    by_name = {node["node-name"]: node for node in nodes}
    disks: dict[str, Any] = {}
    for name, disk in declared.items():
        drive = Drive(name, Path(), "raw")
        node = by_name.get(drive.node)
        if node is None or devices.get(drive.device) != _DRIVER:
            continue
        disks[name] = {**disk, "readOnly": node["ro"]}
        if "size" in disk:
            disks[name]["size"] = size_of(node["image"]["virtual-size"], disk["size"])
    return disks


def size_of(found: int, declared: int) -> int:
    """Disks count in sectors."""
    return declared if -(-declared // _SECTOR) * _SECTOR == found else found
