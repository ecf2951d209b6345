"""APPLY: device nodes of the host: a block device becomes a disk of the guest, a terminal a serial port on USB.

(On USB because the ports of a PCI card need I/O addresses, and what is behind a bridge gets none while the guest runs.)

Opened here and handed to QEMU. One that is not there is waited for: a later pass plugs it in.
"""

from __future__ import annotations

import os
import stat

from reconciler.backends.qemu.machine import node_name
from reconciler.backends.qemu.plugging.disks import drop_nodes
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.records import Record
from reconciler.model import Json
from reconciler.problems import Problem, Refused

_DISK, _PORT = "virtio-blk-pci", "usb-serial"


def part_of(path: str, subject: str, field: str) -> dict[str, Json]:
    """With which node it is: one that was pulled out and put back is another one."""
    try:
        there = os.stat(path)
    except OSError:
        return {"device": None, "path": path}
    if not (stat.S_ISBLK(there.st_mode) or stat.S_ISCHR(there.st_mode)):
        raise Refused(Problem(f"{field}: {path} is no device", subject=subject))
    driver = _DISK if stat.S_ISBLK(there.st_mode) else _PORT
    return {"device": {"driver": driver}, "path": path, "node": [there.st_dev, there.st_ino, there.st_rdev]}


def check(path: str, subject: str, field: str) -> None:
    """Refused when it is there, and nothing that a VM can have."""
    if part_of(path, subject, field)["device"] == {"driver": _PORT}:
        os.close(_open(path, subject, exclusive=False))


def open_behind(live: Live, id: str, part: Json) -> dict[str, Json]:
    """Its descriptor goes in, and what QEMU puts between that and the guest."""
    close_behind(live, id, part)  # what a try that was cut off has left
    monitor, is_disk = live.monitor, part["device"]["driver"] == _DISK
    handle = _open(part["path"], live.subject, exclusive=is_disk)
    try:
        fdset = monitor.execute_with(handle, "add-fd", {"opaque": id})["fdset-id"]
    finally:
        os.close(handle)
    file = f"/dev/fdset/{fdset}"
    if is_disk:
        node = {
            "driver": "raw",
            "node-name": node_name("device", id),
            "file": {"driver": "host_device", "filename": file},
        }
        monitor.execute("blockdev-add", node)
        return {"drive": node["node-name"], "serial": id.partition("-")[2][:20]}
    monitor.execute("chardev-add", {"id": f"{id}-line", "backend": {"type": "serial", "data": {"device": file}}})
    return {"chardev": f"{id}-line", "serial": id.partition("-")[2]}


def close_behind(live: Live, id: str, _part: Json) -> None:
    """Take out what is behind it, whatever of that there is."""
    monitor = live.monitor
    drop_nodes(live, node_name("device", id))
    drop_line(live, f"{id}-line")
    for fdset in monitor.execute("query-fdsets"):
        if any(fd.get("opaque") == id for fd in fdset["fds"]):
            monitor.execute("remove-fd", {"fdset-id": fdset["fdset-id"]})


def drop_line(live: Live, line: str) -> None:
    """Take a character device out, if it is there."""
    if any(one["label"] == line for one in live.monitor.execute("query-chardev")):
        live.monitor.execute("chardev-remove", {"id": line})


def is_usb(part: Json) -> bool:
    """Whether it goes into the USB controller."""
    return bool(part["device"]["driver"] == _PORT)


def let_go(_record: Record, _id: str, _part: Json) -> None:
    """QEMU held the only descriptor."""


def is_whole(_part: Json, _record: Record) -> bool:
    """Another node would be another part."""
    return True


def _open(path: str, subject: str, exclusive: bool) -> int:
    """A disk that the host or another machine uses is refused (O_EXCL); a character device has to be a terminal."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        handle = os.open(path, flags | (os.O_EXCL if exclusive else 0))
    except OSError as error:
        hint = "unmount it first, or take it from the other machine" if exclusive else None
        raise Refused(Problem(f"{path}: {error.strerror}", subject=subject, hint=hint)) from error
    if not (exclusive or os.isatty(handle)):
        os.close(handle)
        hint = "a VM takes serial ports (tty) and block devices; containers take others, too"
        raise Refused(Problem(f"{path}: neither a serial port nor a block device", subject=subject, hint=hint))
    return handle
