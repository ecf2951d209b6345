"""OBSERVE: what vendors and products are called, from the distribution's lists (usb.ids, pci.ids) where these are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from reconciler.backends.host import ROOT

_FOLDERS = ("usr/share/misc", "usr/share/hwdata", "var/lib/usbutils")
Pair = tuple[str, str]
"""Vendor and product."""


def names_of(list_name: str, wanted: Collection[Pair], root: Path = ROOT) -> dict[Pair, str]:
    """Vendor and product in words, for those that the list (``usb.ids``, ``pci.ids``) knows."""
    lists = [root / folder / list_name for folder in _FOLDERS]
    file = next((path for path in lists if path.is_file()), None)
    if file is None or not wanted:
        return {}
    vendors = {vendor for vendor, _ in wanted}
    found: dict[Pair, str] = {}
    vendor, maker = "", ""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("#", "\t\t")) or not line.strip():
                continue
            if line.startswith("C "):  # classes: no vendors follow
                break
            number, _, name = line.strip().partition("  ")
            if not line.startswith("\t"):
                vendor, maker = (number, name) if number in vendors else ("", "")
                found |= {pair: maker for pair in wanted if vendor and pair[0] == vendor}
            elif vendor and (vendor, number) in wanted:
                found[vendor, number] = f"{maker} {name}"
    return found
