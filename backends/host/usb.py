"""OBSERVE: the USB devices of the host, hubs left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.host import ROOT, entries, text_of

_PLACE = re.compile(r"(\d+)-(\d+(?:\.\d+)*)")
_HUB = "09"


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """bus, port: where it is plugged in, and stays when it is plugged in there again; address: new with every plugging

    vendor, product: four hexadecimal digits; serial, maker, name: as the device calls itself, None when it does not
    """

    bus: int
    port: str
    address: int
    vendor: str
    product: str
    serial: str | None = None
    maker: str | None = None
    name: str | None = None

    def node(self, root: Path = ROOT) -> Path:
        """Its device node: whoever may write to it has the whole device."""
        return root / f"dev/bus/usb/{self.bus:03d}/{self.address:03d}"


def usb_devices(root: Path = ROOT) -> list[UsbDevice]:
    """All of them, by bus and port. Nothing on a host without USB."""
    found = [_read(entry, place) for entry in entries(root / "sys/bus/usb/devices") if (place := _place(entry))]
    return sorted((one for one in found if one is not None), key=lambda one: (one.bus, _numbers(one.port)))


def _place(entry: Path) -> re.Match[str] | None:
    """``1-1.2``; root hubs are called ``usb1``, a device's interfaces ``1-1.2:1.0``."""
    return _PLACE.fullmatch(entry.name)


def _read(entry: Path, place: re.Match[str]) -> UsbDevice | None:
    vendor, product, address = (text_of(entry / name) for name in ("idVendor", "idProduct", "devnum"))
    # One that is being pulled out right now has no attributes any more.
    if not (vendor and product and address) or text_of(entry / "bDeviceClass") == _HUB:
        return None
    words = (text_of(entry / name) or None for name in ("serial", "manufacturer", "product"))
    return UsbDevice(int(place[1]), place[2], int(address), vendor, product, *words)


def _numbers(port: str) -> list[int]:
    return [int(part) for part in port.split(".")]
