"""APPLY: disks, plugged in and out, grown and put in order while the guest runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reconciler.backends.qemu import machine, process
from reconciler.backends.qemu.folders import all_folders
from reconciler.backends.qemu.headers import check
from reconciler.backends.qemu.inside.disks import leave
from reconciler.backends.qemu.machine import Drive
from reconciler.backends.qemu.plugging.live import PERIPHERAL, Live
from reconciler.backends.qemu.records import load
from reconciler.model import Json, Spec
from reconciler.problems import Problem, Refused

SECTION, PREFIX = "disks", "disk-"
_SECTOR = 512
_LOCK = "lock"
_INTERNAL = "_"
"""The machine's own drives (boot image, seed) begin with it: they come at birth and stay."""


def declared(live: Live) -> Mapping[str, Drive]:
    """The drives by name; a guest that runs keeps the internal ones that it was born with."""
    internal = {drive.name for drive in live.drives if drive.name.startswith(_INTERNAL)}
    born = {name for name in internal if not live.booted or f"{PREFIX}{name}" in live.record.plugged}
    return {drive.name: drive for drive in live.drives if drive.name not in internal - born}


def part_of(_live: Live, _name: str, drive: Drive) -> Json:
    """Its file, the format, the right to write. It grows as it is."""
    return {"file": str(drive.file), "format": drive.format, "readOnly": drive.read_only}


def is_own(spec: Spec, name: str) -> bool:
    """Whether its file belongs to the machine, and goes with it."""
    disk = spec.get("disks", {}).get(name, {})
    return bool(disk) and "disk" not in disk and "path" not in disk


def is_whole(_live: Live, _name: str) -> bool:
    """Its file is held open by QEMU itself."""
    return True


def plug(live: Live, name: str, _part: Json) -> None:
    """Its file goes in as a descriptor, the nodes of QEMU's block graph on top of that, the device at last."""
    drive = declared(live)[name]
    monitor = live.monitor
    _drop_nodes(live, drive.name)  # what a try that was cut off has left
    with ExitStack() as stack:
        handle = stack.enter_context(open_drive(drive, live.subject))
        fdset = stack.enter_context(handed_over(live, handle))
        backing = None
        if drive.backing is not None:
            base = stack.enter_context(opened(drive.backing, os.O_RDONLY, live.subject))
            backing = stack.enter_context(handed_over(live, base))
        for node in machine.block_nodes(drive, fdset, backing):
            monitor.execute("blockdev-add", node)
    # QEMU refuses a place in the boot order that another has: while the guest runs, ``order`` has made room.
    try:
        live.plug({**machine.disk_device(drive), "bootindex": live.drives.index(drive) + 1})
    except Refused as error:
        raise _named(live, drive, error) from error


def _named(live: Live, drive: Drive, error: Refused) -> Refused:
    """Two writers destroy a disk, so QEMU locks its file; who has it, we know better than the lock does."""
    if _LOCK not in error.problem.summary:
        return error
    users = [user for user in _users(live, drive.file) if user != (live.subject, drive.name)]
    by = " and ".join(f"{id} (disks.{name})" for id, name in users) or "another program"
    hint = "a disk has one owner: take it from the other one first, or give each a disk of its own"
    return Refused(Problem(f"disks.{drive.name}: {drive.file} is in use by {by}", subject=live.subject, hint=hint))


def _users(live: Live, file: Path) -> Iterator[tuple[str, str]]:
    """Which machines of ours that run have that very file, whatever they call it."""
    for folder in all_folders(live.folder.path.parent.parent, live.folder.sockets.parent.parent):
        record = live.record if folder.name == live.folder.name else load(folder)
        if record is not None and process.find(folder, record) is not None:
            for id, part in record.plugged.items():
                if id.startswith(PREFIX) and _is_same(Path(part["file"]), file):
                    yield record.id, id.removeprefix(PREFIX)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def unplug(live: Live, name: str, _part: Json) -> None:
    """What the guest has mounted of it first; the device, then what was below it."""
    present = live.present()
    if live.booted and "agent" in present and f"{PREFIX}{name}" in present:
        live.record = leave(live.folder, live.record, name, live.tell)
    live.unplug(f"{PREFIX}{name}")
    _drop_nodes(live, name)


def grow(live: Live) -> None:
    """Have QEMU grow what is wanted bigger than it is; the guest sees it at once."""
    if all(drive.size is None for drive in live.drives):
        return
    nodes = {node["node-name"]: node for node in live.monitor.execute("query-named-block-nodes", {"flat": True})}
    for drive in live.drives:
        node = nodes.get(drive.node)
        if node is not None and drive.size is not None and node["image"]["virtual-size"] < drive.size:
            live.tell(f"growing {drive.name}")
            live.save()
            size = -(-drive.size // _SECTOR) * _SECTOR
            live.monitor.execute("block_resize", {"node-name": drive.node, "size": size})


def order(live: Live) -> None:
    """The order in which the firmware will try them when the guest boots next: each in its place, the places of those
    that are yet to come free."""
    present = live.present()
    there = [(place, drive.device) for place, drive in enumerate(live.drives, 1) if drive.device in present]
    now = {device: _place(live, device) for _, device in there}
    if moved := [(place, device) for place, device in there if now[device] != place]:
        live.save()
    for _, device in moved:  # a place has to be free before another can take it
        if now[device] >= 0:
            _put(live, device, -1)
    for place, device in moved:
        _put(live, device, place)


def _place(live: Live, device: str) -> int:
    return int(live.monitor.execute("qom-get", {"path": f"{PERIPHERAL}/{device}", "property": "bootindex"}))


def _put(live: Live, device: str, place: int) -> None:
    live.monitor.execute("qom-set", {"path": f"{PERIPHERAL}/{device}", "property": "bootindex", "value": place})


def _drop_nodes(live: Live, name: str) -> None:
    """Take the disk's nodes out of the block graph, top first, and close its descriptors."""
    drop_nodes(live, machine.node_name("disk", name), machine.node_name("base", name))


def drop_nodes(live: Live, *unwanted: str) -> None:
    """Take these nodes out of the block graph, in this order, if they are there, and close their descriptors."""
    nodes = {node["node-name"]: node for node in live.monitor.execute("query-named-block-nodes", {"flat": True})}
    for name in unwanted:
        if (found := nodes.get(name)) is None:
            continue
        live.monitor.execute("blockdev-del", {"node-name": name})
        prefix, _, number = str(found["file"]).rpartition("/")
        if prefix == "/dev/fdset" and number.isdigit():
            _take_back(live, int(number))


@contextmanager
def handed_over(live: Live, handle: int) -> Iterator[int]:
    """The number under which QEMU has the descriptor from now on; not when what it is for is refused."""
    number = int(live.monitor.execute_with(handle, "add-fd", {})["fdset-id"])
    try:
        yield number
    except Refused:
        _take_back(live, number)
        raise


def _take_back(live: Live, fdset: int) -> None:
    """QEMU closes it, once no node uses it; it may have done so already."""
    try:
        live.monitor.execute("remove-fd", {"fdset-id": fdset})
    except Refused as error:
        if "not found" not in error.problem.summary:
            raise


@contextmanager
def open_drive(drive: Drive, subject: str) -> Iterator[int]:
    """A descriptor of the disk, as QEMU is to get it. Refused when it is no disk, or not the one it is said to be."""
    # O_NONBLOCK: a pipe in place of a disk shall be refused, not waited for.
    flags = (os.O_RDONLY if drive.read_only else os.O_RDWR) | os.O_NONBLOCK
    with opened(drive.file, flags, subject) as handle:
        kind = os.fstat(handle).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise Refused(Problem(f"{drive.file}: neither a file nor a block device", subject=subject))
        if drive.foreign:
            check(handle, drive.format, subject, f"disks.{drive.name}")
        yield handle


@contextmanager
def opened(path: Path, flags: int, subject: str) -> Iterator[int]:
    """A descriptor of ``path``, closed afterwards. Refused with the system's words."""
    try:
        handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(Problem(f"{path}: {error.strerror}", subject=subject)) from error
    try:
        yield handle
    finally:
        os.close(handle)
