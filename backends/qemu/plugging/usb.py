"""APPLY: USB devices of the host, and the controller that everything with USB is plugged into.

QEMU itself waits for the device, takes it when it comes, and takes it again when it was pulled out and put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.backends.host import ROOT
from reconciler.backends.host.usb import UsbDevice, usb_devices
from reconciler.backends.qemu import rights
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.records import Record
from reconciler.model import Json, Spec

CONTROLLER = "usb-bus"
_PORTS = 15


def attach(live: Live, device: Mapping[str, Json]) -> None:
    """Plug it into our controller, which comes with the first one and stays."""
    if CONTROLLER not in live.present():
        live.plug({"driver": "qemu-xhci", "id": CONTROLLER, "p2": _PORTS, "p3": _PORTS})
    live.add({**device, "bus": f"{CONTROLLER}.0"})


def part_of(usb: Spec, _subject: str, _field: str, root: Path = ROOT) -> dict[str, Json]:
    """QEMU looks for vendor and product, or for a place. A serial number is not among what it looks for.

    So one with a serial number is looked for here, and QEMU is told its place; while it is nowhere, nothing is plugged.
    """
    device: dict[str, Json] = {"driver": "usb-host"}
    if "vendor" in usb:
        device |= {"vendorid": int(usb["vendor"], 16), "productid": int(usb["product"], 16)}
    if "serial" in usb:
        found = find(usb, root)
        if found is None:
            return {"device": None, "usb": dict(usb)}
        device |= {"hostbus": found.bus, "hostport": found.port}
    elif "bus" in usb:
        device |= {"hostbus": usb["bus"], "hostport": usb["port"]}
    return {"device": device, "usb": dict(usb)}


def find(usb: Spec, root: Path = ROOT) -> UsbDevice | None:
    """The host's first device that is meant; None while there is none."""
    return next((one for one in usb_devices(root) if _is_meant(usb, one)), None)


def open_behind(live: Live, id: str, part: Json) -> dict[str, Json]:
    """Give QEMU the right to what is there, and to what comes later."""
    usb = part["usb"]
    rights.promise(id, _match(usb), live.record)
    if (found := find(usb)) is not None:
        rights.hand_over(found.node(), live.record)
    return {}


def close_behind(live: Live, id: str, part: Json) -> None:
    """Take the right back."""
    let_go(live.record, id, part)


def is_usb(_part: Json) -> bool:
    """It goes into the USB controller."""
    return True


def let_go(record: Record, id: str, part: Json) -> None:
    """The same, where no QEMU is left."""
    rights.withdraw(id, record)
    if (found := find(part["usb"])) is not None:
        rights.take_back(found.node(), record)


def is_whole(part: Json, record: Record) -> bool:
    """Whether QEMU may have it, if it is there."""
    found = find(part["usb"])
    return found is None or record.uid is None or rights.is_handed_over(found.node(), record)


def _is_meant(usb: Spec, one: UsbDevice) -> bool:
    if "bus" in usb:
        return (one.bus, one.port) == (usb["bus"], usb["port"])
    same = (one.vendor, one.product) == (usb["vendor"], usb["product"])
    return same and usb.get("serial", one.serial) == one.serial


def _match(usb: Spec) -> dict[str, str]:
    if "bus" in usb:
        return {"KERNEL": f"{usb['bus']}-{usb['port']}"}
    serial = {"serial": usb["serial"]} if "serial" in usb else {}
    return {"idVendor": usb["vendor"], "idProduct": usb["product"], **serial}
