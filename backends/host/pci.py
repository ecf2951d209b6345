"""OBSERVE: the PCI devices of the host, their drivers, and which of them the IOMMU can only give away together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.host import ROOT, entries, link_name, text_of

_DEVICES = "sys/bus/pci/devices"


@dataclass(frozen=True, slots=True)
class PciDevice:
    """address: such as 0000:00:02.0; vendor, product: four hexadecimal digits; kind: its class, six of them

    driver: the host's, None when none has it; group: its IOMMU group, None where no IOMMU is at work
    """

    address: str
    vendor: str
    product: str
    kind: str
    driver: str | None = None
    group: str | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether it is a display controller."""
        return self.kind.startswith("03")

    @property
    def is_bridge(self) -> bool:
        """Whether it belongs to the host's own wiring: nobody gives it away."""
        return self.kind.startswith("06")


def pci_devices(root: Path = ROOT) -> list[PciDevice]:
    """All of them, by address."""
    found = (_read(entry) for entry in entries(root / _DEVICES))
    return [one for one in found if one is not None]


def find_pci(address: str, root: Path = ROOT) -> PciDevice | None:
    """The one at ``address``; None when there is none."""
    return _read(root / _DEVICES / address)


def group_of(device: PciDevice, root: Path = ROOT) -> list[PciDevice]:
    """Every device of its IOMMU group, itself included."""
    members = entries(root / f"sys/kernel/iommu_groups/{device.group}/devices") if device.group else []
    found = (find_pci(entry.name, root) for entry in members)
    return [one for one in found if one is not None]


def has_iommu(root: Path = ROOT) -> bool:
    """Whether the host has an IOMMU that is switched on."""
    return bool(entries(root / "sys/kernel/iommu_groups"))


def _read(entry: Path) -> PciDevice | None:
    vendor, product, kind = ((text_of(entry / name) or "").removeprefix("0x") for name in ("vendor", "device", "class"))
    if not (vendor and product and kind):
        return None
    driver, group = link_name(entry / "driver"), link_name(entry / "iommu_group")
    return PciDevice(entry.name, vendor, product, kind, driver, group)
