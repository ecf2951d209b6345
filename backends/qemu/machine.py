"""APPLY, pure: a VM's spec and record → what QEMU is told. Here is every word of its command line and of its devices.

What is given by users stands only in JSON values, in arguments of its own (``-append``), or is checked against a closed
set.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid5

from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.records import Record
from reconciler.backends.qemu.shares import cold
from reconciler.backends.qemu.sizing import BLOCK, memory_size, room_for
from reconciler.model import Json, Spec
from reconciler.problems import Problem, Refused

BOOT = "_boot"
"""The disk of ``boot: {image}`` among those that have names (a name never begins with an underscore)."""
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MACHINES = re.compile(r"q35|pc-q35-[0-9.]+")
_ALWAYS = 4
"""Ports that every machine needs beside what is declared: agent, memory (two), USB."""
_FREE_PORTS = 12
MOST_PORTS = 120
"""Slots 0x10 to 0x1e of the root bus, eight to a slot; the last slot is the chipset's own."""
_MORE_MEMORY, _BALLOON = "8.0", "9.0"


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk as the VM gets it: from which file, in which format, and what that file stands on.

    name: as in the manifest; size: what it has to be grown to at least, in bytes; None: as it is
    foreign: a file that others made: it may not be what it is said to be
    """

    name: str
    file: Path
    format: str
    read_only: bool = False
    backing: Path | None = None
    backing_format: str = "raw"
    size: int | None = None
    foreign: bool = False

    @property
    def device(self) -> str:
        """Its name in QEMU's device tree."""
        return f"disk-{self.name}"

    @property
    def node(self) -> str:
        """Its name in QEMU's block graph, which takes 31 characters."""
        return node_name("disk", self.name)


@dataclass(frozen=True, slots=True)
class Handles:
    """The file descriptors that a QEMU is born with."""

    qmp: int
    people: int
    events: int
    serial: int
    serial_log: int
    kernel: int | None = None
    initrd: int | None = None
    firmware: int | None = None
    firmware_vars: int | None = None
    tpm: int | None = None
    folders: Mapping[str, int] = field(default_factory=dict)

    def all(self) -> list[int]:
        """Those that there are."""
        given = (getattr(self, name) for name in self.__dataclass_fields__ if name != "folders")
        return [handle for handle in (*given, *self.folders.values()) if handle is not None]


def node_name(kind: str, name: str) -> str:
    """A name for QEMU's block graph, which takes 31 characters."""
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def mac_of(birth: str, name: str, nic: Spec) -> str:
    """The NIC's address: as given, else always the same for this VM and NIC."""
    if given := nic.get("mac"):
        return str(given).lower()
    tail = uuid5(UUID(birth), f"nic/{name}").bytes[:3]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def command_line(
    program: str, spec: Spec, record: Record, accelerator: str, handles: Handles, boot_line: str, ports: int
) -> list[str]:
    """The whole argv. Disks, NICs and all else that can be plugged follow over QMP."""
    return [
        program,
        "-S",
        "-nodefaults",
        "-no-user-config",
        *("-display", "none"),
        *("-uuid", record.uuid),
        *("-sandbox", SANDBOX),
        *("-machine", ",".join(_machine(spec, record.id))),
        *("-accel", {"tcg": "tcg,thread=multi", "kvm": "kvm"}[accelerator]),
        *("-cpu", _word(str(spec.get("cpuModel", "max")), "cpuModel", record.id)),
        *_processors(spec),
        *_memory(spec),
        *_monitors(handles),
        *_firmware(spec, handles),
        *_serial(handles),
        *_tpm(handles),
        *_folders(spec, handles),
        *_devices(ports),
        *_kernel(handles, boot_line),
    ]


def ports_for(spec: Spec, drives: Iterable[Drive]) -> int:
    """How many PCIe root ports: one a device that we plug in, and some that stay free for what comes later."""
    plugged = sum(len(spec.get(section, ())) for section in ("nics", "shares", "devices"))
    return min(len(list(drives)) + plugged + _ALWAYS + _FREE_PORTS, MOST_PORTS)


def block_nodes(drive: Drive, fdset: int, backing_fdset: int | None) -> Iterator[Json]:
    """``blockdev-add`` arguments, bottom first; every layer's format said, none probed, none followed from a header."""
    if drive.backing is not None and backing_fdset is not None:
        base = {"driver": drive.backing_format, "node-name": node_name("base", drive.name), "read-only": True}
        if drive.backing_format == "qcow2":
            base["backing"] = None
        yield {**base, "file": _file(backing_fdset, read_only=True)}
    node = {"driver": drive.format, "node-name": drive.node, "read-only": drive.read_only, "discard": "unmap"}
    if drive.format == "qcow2":
        node["backing"] = node_name("base", drive.name) if drive.backing is not None else None
    yield {**node, "file": _file(fdset, drive.read_only)}


def disk_device(drive: Drive) -> dict[str, Json]:
    """``device_add`` arguments."""
    return {"driver": "virtio-blk-pci", "id": drive.device, "drive": drive.node, "serial": drive.name[:20]}


def nic_device(name: str, nic: Spec) -> dict[str, Json]:
    """``device_add`` arguments. nic: with the address that it is to have."""
    driver = nic.get("model", "virtio-net-pci")
    return {"driver": driver, "id": f"nic-{name}", "netdev": f"net-{name}", "mac": nic["mac"]}


def _file(fdset: int, read_only: bool) -> Json:
    return {"driver": "file", "filename": f"/dev/fdset/{fdset}", "read-only": read_only, "discard": "unmap"}


def check_machine(spec: Spec, subject: str) -> str:
    """The machine type; Refused when our devices do not fit into it."""
    machine = str(spec.get("machine", "q35"))
    if not _MACHINES.fullmatch(machine):
        hint = 'say "q35", or one of its versions such as "pc-q35-7.2"'
        raise Refused(Problem(f'machine: "{machine}" is not supported', subject=subject, hint=hint))
    return machine


def _machine(spec: Spec, subject: str) -> Iterator[str]:
    yield check_machine(spec, subject)
    yield "memory-backend=ram"
    yield "graphics=off"  # the firmware speaks on the serial console too
    yield "vmport=off"
    if spec.get("firmware") == "uefi":
        yield "pflash0=firmware"
        yield "pflash1=firmware-vars"


def _processors(spec: Spec) -> tuple[str, str]:
    count = int(spec["cpus"]["count"])
    most = int(spec["cpus"].get("max", count))
    return "-smp", f"cpus={count},maxcpus={max(count, most)}"


def _memory(spec: Spec) -> Iterator[str]:
    size = memory_size(int(spec["memory"]["size"]))
    room = room_for(int(spec["memory"].get("max", size)), size)
    ram = {"qom-type": "memory-backend-memfd", "id": "ram", "size": size, "share": True}
    yield from ("-object", json.dumps(ram))
    # Neither is ever unplugged: they stand on the root bus, and leave the ports to what comes and goes.
    balloon = {"driver": "virtio-balloon-pci", "id": "balloon", "bus": "pcie.0", "addr": _BALLOON}
    yield from ("-device", json.dumps({**balloon, "deflate-on-oom": True, "free-page-reporting": True}))
    if not room:
        yield from ("-m", f"size={size}B")
        return
    yield from ("-m", f"size={size}B,maxmem={size + room}B,slots=1")
    yield from ("-object", json.dumps({"qom-type": "memory-backend-memfd", "id": "more", "size": room, "share": True}))
    more = {"driver": "virtio-mem-pci", "id": "memory", "memdev": "more", "bus": "pcie.0", "addr": _MORE_MEMORY}
    yield from ("-device", json.dumps({**more, "node": 0, "block-size": BLOCK, "requested-size": 0}))


SHUTDOWN = "qemu_system_shutdown_request"
"""What QEMU writes into its log when it is to end, with the reason."""


def _monitors(handles: Handles) -> Iterator[str]:
    for name, handle in (("ours", handles.qmp), ("people", handles.people), ("events", handles.events)):
        yield from ("-chardev", f"socket,id={name},fd={handle},server=on,wait=off")
        yield from ("-mon", f"chardev={name},mode=control")
    yield from ("-trace", f"enable={SHUTDOWN}")  # QEMU's own log then says why it ended, whoever listens or not


def _firmware(spec: Spec, handles: Handles) -> Iterator[str]:
    if spec.get("firmware") != "uefi":
        return
    for number, (node, handle) in enumerate(
        (("firmware", handles.firmware), ("firmware-vars", handles.firmware_vars)), start=2
    ):
        read_only = node == "firmware"
        yield from ("-add-fd", f"fd={handle},set={number}")
        yield from (
            "-blockdev",
            json.dumps({"driver": "raw", "node-name": node, "read-only": read_only, "file": _file(number, read_only)}),
        )


def _serial(handles: Handles) -> Iterator[str]:
    # An ISA device cannot be plugged: it has to be there from the start.
    yield from ("-add-fd", f"fd={handles.serial_log},set=1")
    socket = f"socket,id=serial,fd={handles.serial},server=on,wait=off,logfile=/dev/fdset/1,logappend=on"
    yield from ("-chardev", socket)
    yield from ("-device", json.dumps({"driver": "isa-serial", "chardev": "serial"}))


def _folders(spec: Spec, handles: Handles) -> Iterator[str]:
    for name, handle in handles.folders.items():
        yield from ("-fsdev", cold.options(name, spec["shares"][name], handle))


def _tpm(handles: Handles) -> Iterator[str]:
    # It cannot be plugged either.
    if handles.tpm is not None:
        yield from ("-chardev", f"socket,id=tpm,fd={handles.tpm}")
        yield from ("-tpmdev", "emulator,id=tpm,chardev=tpm")
        yield from ("-device", json.dumps({"driver": "tpm-crb", "tpmdev": "tpm"}))


def _devices(ports: int) -> Iterator[str]:
    yield from ("-device", json.dumps({"driver": "pvpanic-pci"}))
    for number in range(ports):
        port = {
            "driver": "pcie-root-port",
            "id": f"port{number}",
            "chassis": number + 1,
            "bus": "pcie.0",
            "addr": f"{0x10 + number // 8:x}.{number % 8:x}",
            "multifunction": True,
        }
        yield from ("-device", json.dumps(port))


def _kernel(handles: Handles, boot_line: str) -> Iterator[str]:
    if handles.kernel is None:
        return
    yield from ("-kernel", f"/proc/self/fd/{handles.kernel}")
    if handles.initrd is not None:
        yield from ("-initrd", f"/proc/self/fd/{handles.initrd}")
    if boot_line:
        yield from ("-append", boot_line)


def _word(text: str, field: str, subject: str) -> str:
    if not _WORD.fullmatch(text):
        raise Refused(Problem(f'{field}: expected a single word such as "max", got "{text}"', subject=subject))
    return text


def drives_of(spec: Spec, record: Record, folder: Folder, stored: Mapping[str, tuple[Path, str]]) -> list[Drive]:
    """Every disk in boot order. ``stored``: Disk name → its file and format."""
    boot = record.images.get(BOOT)
    drives = (
        [_overlay(BOOT, boot, {"readOnly": boot.get("readOnly", False)}, folder)] if boot and boot.get("format") else []
    )
    disks = spec.get("disks", {})
    for name in sorted(disks, key=_place(spec)):
        drives.append(_drive(name, disks[name], record, folder, stored))
    if "cloudInit" in spec:
        drives.append(Drive("_seed", folder.seed, "raw", read_only=True))
    return drives


def _place(spec: Spec) -> Callable[[str], int]:
    """Where a disk stands in the boot order; records keep no order of mappings, so it is a field of its own."""
    order = list(spec.get("bootOrder", ()))
    return lambda name: order.index(name) if name in order else len(order)


def _drive(name: str, disk: Spec, record: Record, folder: Folder, stored: Mapping[str, tuple[Path, str]]) -> Drive:
    read_only = bool(disk.get("readOnly", False))
    format = str(disk.get("format", "qcow2"))
    if "image" in disk:
        return _overlay(name, record.images[name], disk, folder)
    if "disk" in disk:
        file, format = stored[str(disk["disk"])]
        return Drive(name, file, format, read_only)
    if "path" in disk:
        return Drive(name, Path(str(disk["path"])), format, read_only, foreign=True)
    return Drive(name, folder.disk(name, format), format, read_only, size=int(disk["size"]))


def _overlay(name: str, image: Mapping[str, Json], disk: Spec, folder: Folder) -> Drive:
    base, base_format = folder.base(name), str(image["format"])
    if disk.get("readOnly"):
        return Drive(name, base, base_format, read_only=True)
    return Drive(
        name, folder.disk(name, "qcow2"), "qcow2", backing=base, backing_format=base_format, size=disk.get("size")
    )
