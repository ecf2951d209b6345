"""APPLY: PCI devices of the host, GPUs among them, given to the guest as they are.

Only where the IOMMU keeps the guest from reaching anything else by them: each condition is looked at beforehand, and
the one that is not met is named.
"""

from __future__ import annotations

import resource
from pathlib import Path

from reconciler.backends.host import ROOT
from reconciler.backends.host.pci import PciDevice, find_pci, group_of, has_iommu
from reconciler.backends.qemu import rights
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.records import Record
from reconciler.model import Json
from reconciler.problems import Problem, Refused

DRIVER = "vfio-pci"
_HARMLESS = frozenset({DRIVER, "pci-stub", None})
"""Drivers of a device in the same group that let go of it: nobody else can reach memory through it."""
_BESIDES = 1 << 30
"""Bytes that VFIO may lock beside the guest's memory: the registers and memory of the devices themselves."""


def part_of(address: str, _subject: str, _field: str) -> dict[str, Json]:
    """Its address says it all."""
    return {"device": {"driver": DRIVER, "host": address}}


def check(address: str, subject: str, field: str, gpu: bool = False, root: Path = ROOT) -> PciDevice:
    """The device at ``address``; Refused, naming what is missing, when it cannot be given to a guest safely."""

    def refused(what: str, hint: str) -> Refused:
        return Refused(Problem(f"{field}: {address}: {what}", subject=subject, hint=hint))

    device = find_pci(address, root)
    if device is None:
        raise refused("this host has no such PCI device", "`reconciler devices` lists them")
    if gpu and not device.is_gpu:
        raise refused("it is no GPU", "say `pci:` instead")
    if device.is_bridge:
        raise refused("it is a bridge of the host", "give away the device behind it")
    if not has_iommu(root):
        hint = "switch VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on (or amd_iommu=on)"
        raise refused("the host's IOMMU is off, or there is none", hint)
    if device.group is None:
        raise refused("the IOMMU does not cover it", "it cannot be given to a guest")
    if device.driver != DRIVER:
        raise refused(f"its driver is {device.driver or 'none'}, not {DRIVER}", _bind(address))
    used = [one for one in group_of(device, root) if not one.is_bridge and one.driver not in _HARMLESS]
    if used:
        names = ", ".join(f"{one.address} ({one.driver})" for one in used)
        what = f"the host uses others of its IOMMU group {device.group}: {names}"
        raise refused(what, f"they can only go together: bind them to {DRIVER}, too")
    if not _group_node(device, root).exists():
        raise refused(f"there is no /dev/vfio/{device.group}", f"modprobe {DRIVER}")
    return device


def open_behind(live: Live, id: str, part: Json) -> dict[str, Json]:
    """QEMU opens the group by itself, and locks all of the guest's memory: it is given the right to do both."""
    device = check(part["device"]["host"], live.subject, id)
    rights.hand_over(_group_node(device), live.record)
    if live.record.process is not None and live.record.uid is not None:
        least = int(live.spec["memory"].get("max", live.spec["memory"]["size"])) + _BESIDES
        resource.prlimit(live.record.process.pid, resource.RLIMIT_MEMLOCK, (least, least))
    return {}


def close_behind(live: Live, id: str, part: Json) -> None:
    """Take the right back."""
    let_go(live.record, id, part)


def is_usb(_part: Json) -> bool:
    """It goes into a port of its own."""
    return False


def let_go(record: Record, _id: str, part: Json) -> None:
    """The same, where no QEMU is left."""
    device = find_pci(part["device"]["host"])
    if device is not None and device.group is not None:
        rights.take_back(_group_node(device), record)


def is_whole(_part: Json, _record: Record) -> bool:
    """What was given away cannot be taken by others."""
    return True


def _group_node(device: PciDevice, root: Path = ROOT) -> Path:
    return root / f"dev/vfio/{device.group}"


def _bind(address: str) -> str:
    return f"`modprobe {DRIVER} && driverctl set-override {address} {DRIVER}` takes it from the host"
