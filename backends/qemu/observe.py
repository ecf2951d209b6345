"""OBSERVE: what the QEMUs of this host are doing, asked of themselves, all at once → Observed in resolved terms.

The record supplies only what no QEMU can tell (files, run, ready …) and what a machine that is down was last given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.backends.qemu import process, records
from reconciler.backends.qemu.disks import header_of
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.machine import BOOT, Drive, drives_of, mac_of, memory_size
from reconciler.backends.qemu.provision import due_files
from reconciler.backends.qemu.records import Record
from reconciler.model import QEMU, Condition, Json, Observed, Power, ResourceId
from reconciler.problems import BackendError, Problem, Refused, Unreachable

Command = tuple[str, Mapping[str, Json]]
PATIENCE = 5.0
"""Seconds for one VM to answer everything; all are asked at the same time."""
_SECTOR = 512
_FAMILIES = {"q35": "pc-q35-"}
_POWERS = {
    "running": Power.RUNNING,
    "paused": Power.PAUSED,
    "suspended": Power.PAUSED,
    "prelaunch": Power.STOPPED,
    "shutdown": Power.STOPPED,
}
_BASICS: tuple[Command, ...] = (
    ("query-status", {}),
    ("query-uuid", {}),
    ("query-kvm", {}),
    ("query-cpus-fast", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-memory-size-summary", {}),
    ("query-named-block-nodes", {"flat": True}),
    ("qom-get", {"path": "/machine", "property": "type"}),
    ("qom-list", {"path": "/machine/peripheral"}),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One VM, before it is put into words: answers in the order of _BASICS, then the NICs' addresses."""

    folder: Folder
    record: Record
    answers: Sequence[Json | BackendError] | BackendError | None

    @property
    def alive(self) -> bool:
        """Whether there is a QEMU."""
        return self.answers is not None


def observe(folders: Sequence[Folder], stored: Mapping[str, tuple[Path, str]]) -> list[Observed]:
    """All these VMs. Those that do not answer are there too, with the condition ``Answering`` false: hold them."""
    found: list[Observed] = []
    live: dict[str, tuple[Folder, Record]] = {}
    for folder in folders:
        try:
            record = records.load(folder)
            if record is None:
                continue
            if process.find(folder, record) is None:
                found.append(_put(Seen(folder, record, None), stored))
            else:
                live[folder.name] = (folder, record)
        except Unreachable as error:
            found.append(_unknown(folder, None, error))
    answers = _ask({name: (one[0].qmp, _questions(one[1])) for name, one in live.items()})
    for name, (folder, record) in live.items():
        found.append(_put(Seen(folder, record, answers[name]), stored))
    return found


def _ask(
    questions: Mapping[str, tuple[Path, Sequence[Command]]],
) -> Mapping[str, list[Json | BackendError] | BackendError]:
    if not questions:
        return {}
    from reconciler.backends.qemu.client import ask_many  # costs 60 ms: only where a VM runs

    return ask_many(questions, PATIENCE)


def _questions(record: Record) -> list[Command]:
    nics = (record.applied or {}).get("nics", {})
    return [
        *_BASICS,
        *(("qom-get", {"path": f"/machine/peripheral/nic-{nic}", "property": "mac"}) for nic in nics),
    ]


def _put(seen: Seen, stored: Mapping[str, tuple[Path, str]]) -> Observed:
    folder, record = seen.folder, seen.record
    if isinstance(seen.answers, BackendError):
        if process.find(folder, record) is None:  # it ended while it was asked
            return _put(Seen(folder, record, None), stored)
        return _unknown(folder, record, seen.answers)
    power, spec = (Power.STOPPED, _declared(record)) if seen.answers is None else _live(seen)
    if isinstance(spec, BackendError):
        return _unknown(folder, record, spec)
    if seen.answers is None:
        spec["disks"] = _disks_at_rest(record, folder, spec.get("disks", {}), stored)
    if not spec.get("disks"):
        spec.pop("disks", None)
    return _observed(folder, record, power, spec)


def _observed(
    folder: Folder, record: Record, power: Power | None, spec: dict[str, Any], *conditions: Condition
) -> Observed:
    shown = json.dumps([record.environment, record.pending, record.applied, power, spec], sort_keys=True)
    revision = hashlib.sha256(shown.encode()).hexdigest()
    return Observed(
        ResourceId("VirtualMachine", folder.name),
        QEMU,
        spec,
        power,
        owned=True,
        revision=revision,
        environment=record.environment,
        applied=record.applied,
        pending=record.pending or _left_over(record, power),
        needs=_needs(record),
        conditions=conditions,
    )


def _left_over(record: Record, power: Power | None) -> str | None:
    """What a start from the command line, which has no manifest at hand, left for the next apply."""
    if power is not Power.RUNNING:
        return None
    if due_files(record.applied or {}, record.files):
        return "files"
    return None if record.settled == record.process else "start"


def _unknown(folder: Folder, record: Record | None, error: BackendError) -> Observed:
    """It is there, and what it does is not known: nothing may be done to it, least of all a second QEMU."""
    condition = Condition("Answering", False, type(error).__name__, error.problem.summary)
    if record is not None:
        return _observed(folder, record, None, _declared(record), condition)
    id = ResourceId("VirtualMachine", folder.name)
    return Observed(id, QEMU, {}, None, owned=False, conditions=(condition,))


def _declared(record: Record) -> dict[str, Any]:
    """As applied, with the images that it was really made from."""
    spec: dict[str, Any] = json.loads(json.dumps(record.applied or {}))
    boot = record.images.get(BOOT)
    if boot and "image" in spec.get("boot", {}):
        spec["boot"]["image"] = {"name": boot["name"], "identity": boot["identity"]}
    for name, disk in spec.get("disks", {}).items():
        image = record.images.get(name)
        if image and "image" in disk:
            disk["image"] = {"name": image["name"], "identity": image["identity"]}
    spec.pop("power", None)
    return spec


def _live(seen: Seen) -> tuple[Power, dict[str, Any] | BackendError]:
    """What QEMU says of itself, in the manifest's words."""
    assert isinstance(seen.answers, Sequence)
    refused = [answer for answer in seen.answers[: len(_BASICS)] if isinstance(answer, BackendError)]
    if refused:
        return Power.ERROR, refused[0]
    status, uuid, kvm, cpus, slots, memory, nodes, kind, peripheral = seen.answers[: len(_BASICS)]
    if uuid["UUID"] != seen.record.uuid:
        return Power.ERROR, _stranger(seen.record)
    spec = _declared(seen.record)
    spec["machine"] = _machine(kind, str(spec.get("machine", "q35")))
    spec["accelerator"] = _accelerator(kvm, str(spec.get("accelerator", "auto")))
    spec["cpuModel"] = str(slots[0]["type"]).removesuffix("-x86_64-cpu")
    spec["cpus"] = {**spec.get("cpus", {}), "count": len(cpus)}
    spec["memory"] = _memory(memory["base-memory"] + memory["plugged-memory"], spec.get("memory", {}))
    devices = {device["name"]: device["type"] for device in peripheral}
    spec["guestAgent"] = "agent" in devices
    spec["disks"] = live_disks(spec.get("disks", {}), devices, nodes)
    macs = dict(zip(spec.get("nics", {}), seen.answers[len(_BASICS) :], strict=True))
    spec["nics"] = _live_nics(seen.record, spec.get("nics", {}), devices, macs)
    if not spec["nics"]:
        del spec["nics"]
    return _POWERS.get(status["status"], Power.ERROR), spec


def _memory(size: int, declared: Mapping[str, int]) -> dict[str, int]:
    """As declared, when that is what QEMU rounds it to."""
    same = memory_size(declared.get("size", 0)) == size
    return {**declared, "size": declared["size"] if same else size}


def _size(found: int, declared: int) -> int:
    """Disks count in sectors."""
    return declared if -(-declared // _SECTOR) * _SECTOR == found else found


def _machine(kind: str, declared: str) -> str:
    """``pc-q35-7.2-machine`` is what ``q35`` stood for when the machine was started."""
    version = kind.removesuffix("-machine")
    family = _FAMILIES.get(declared)
    return declared if family and version.startswith(family) else version


def _accelerator(kvm: Mapping[str, bool], declared: str) -> str:
    return declared if declared == "auto" else "kvm" if kvm["enabled"] else "tcg"


def live_disks(declared: Mapping[str, Any], devices: Mapping[str, str], nodes: Sequence[Any]) -> dict[str, Any]:
    """The declared disks that are plugged in, with the size and the right to write that they really have."""
    by_name = {node["node-name"]: node for node in nodes}
    disks: dict[str, Any] = {}
    for name, disk in declared.items():
        drive = Drive(name, Path(), "raw")
        node = by_name.get(drive.node)
        if node is None or devices.get(drive.device) != "child<virtio-blk-pci>":
            continue
        disks[name] = {**disk, "readOnly": node["ro"]}
        if "size" in disk:
            disks[name]["size"] = _size(node["image"]["virtual-size"], disk["size"])
    return disks


def _live_nics(
    record: Record, declared: Mapping[str, Any], devices: Mapping[str, str], macs: Mapping[str, Json | BackendError]
) -> dict[str, Any]:
    nics: dict[str, Any] = {}
    for name, nic in declared.items():
        kind = devices.get(f"nic-{name}")
        if kind is None:
            continue
        nics[name] = {**nic, "model": kind.removeprefix("child<").removesuffix(">")}
        mac = macs[name]
        if not isinstance(mac, Refused) and ("mac" in nic or mac != mac_of(record.birth, name, nic)):
            nics[name]["mac"] = mac
    return nics


def _disks_at_rest(
    record: Record, folder: Folder, declared: Mapping[str, Any], stored: Mapping[str, tuple[Path, str]]
) -> dict[str, Any]:
    """The declared disks whose files are there, with the size that the file's header tells."""
    if record.pending == "create":
        return dict(declared)
    drives = {drive.name: drive for drive in drives_of({"disks": declared}, record, folder, stored)}
    disks: dict[str, Any] = {}
    for name, disk in declared.items():
        try:
            header = header_of(drives[name].file)
        except OSError:
            continue
        disks[name] = {**disk, "size": _size(header.size, disk["size"])} if "size" in disk else disk
    return disks


def _needs(record: Record) -> tuple[ResourceId, ...]:
    spec = record.applied or {}
    disks = spec.get("disks", {}).values()
    needs = {ResourceId("Disk", disk["disk"]) for disk in disks if "disk" in disk}
    needs |= {ResourceId("Image", disk["image"]["name"]) for disk in disks if "image" in disk}
    if "image" in spec.get("boot", {}):
        needs.add(ResourceId("Image", spec["boot"]["image"]["name"]))
    needs |= {ResourceId("Network", nic["bridge"]) for nic in spec.get("nics", {}).values() if nic.get("bridge")}
    return tuple(sorted(needs))


def _stranger(record: Record) -> Unreachable:
    return Unreachable(Problem("the QEMU on its socket bears another uuid", subject=record.id))
