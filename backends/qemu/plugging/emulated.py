"""APPLY: devices that QEMU emulates, and what some of them need behind them."""

from __future__ import annotations

import os

from reconciler.backends.qemu.emulation import DRIVERS, SERIAL, STICK, USB, device_of, stick_size
from reconciler.backends.qemu.machine import node_name
from reconciler.backends.qemu.plugging.disks import drop_nodes, handed_over, opened
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.plugging.nodes import drop_line
from reconciler.backends.qemu.records import Record
from reconciler.model import Json, Spec
from reconciler.paths import private_dir

_BUFFER = 65536


def part_of(emulate: Spec, subject: str, field: str) -> dict[str, Json]:
    """Refused when QEMU does not take it."""
    device = device_of(emulate, subject, field)
    if device["driver"] == STICK:
        return {"device": device, "size": stick_size(emulate, subject, field)}
    return {"device": device}


def is_usb(part: Json) -> bool:
    """Whether it goes into the USB controller."""
    return DRIVERS.get(part["device"]["driver"]) == USB


def open_behind(live: Live, id: str, part: Json) -> dict[str, Json]:
    """A file for a stick; for a serial line a buffer, which ``ringbuf-read`` on the people's monitor reads."""
    close_behind(live, id, part)  # what a try that was cut off has left
    if part["device"]["driver"] == SERIAL:
        backend = {"type": "ringbuf", "data": {"size": _BUFFER}}
        live.monitor.execute("chardev-add", {"id": f"{id}-line", "backend": backend})
        return {"chardev": f"{id}-line"}
    if part["device"]["driver"] != STICK:
        return {}
    stick = live.folder.stick(id)
    private_dir(stick.parent)
    with opened(stick, os.O_RDWR | os.O_CREAT, live.subject) as handle:
        if os.fstat(handle).st_size != part["size"]:
            os.truncate(handle, 0)  # another size is another stick: nothing of the old one is on it
            os.truncate(handle, part["size"])
        with handed_over(live, handle) as fdset:
            file = {"driver": "file", "filename": f"/dev/fdset/{fdset}", "discard": "unmap"}
            node = {"driver": "raw", "node-name": node_name("device", id), "discard": "unmap", "file": file}
            live.monitor.execute("blockdev-add", node)
    return {"drive": node["node-name"]}


def close_behind(live: Live, id: str, part: Json) -> None:
    """The stick's file stays: whether what is on it goes, too, is not decided here."""
    if part["device"]["driver"] == SERIAL:
        drop_line(live, f"{id}-line")
    elif part["device"]["driver"] == STICK:
        drop_nodes(live, node_name("device", id))


def let_go(_record: Record, _id: str, _part: Json) -> None:
    """All of it was QEMU's own."""


def is_whole(_part: Json, _record: Record) -> bool:
    """All of it is QEMU's own."""
    return True
