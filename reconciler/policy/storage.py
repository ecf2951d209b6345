"""POLICY: disks, volumes, shares and devices of the host."""

from __future__ import annotations

from reconciler.policy.infrastructure import check_keys
from reconciler.policy.wishes import Wishes

_VOLUME = ("size", "snapshots.*", "user.*", "block.filesystem", "security.shifted", "lvm.*", "zfs.*")


def check_disk(wishes: Wishes) -> None:
    """A disk that is kept somewhere else than in our state folder."""
    if "path" in wishes.spec:
        wishes.host_path(("path",), wishes.spec["path"])


def check_volume(wishes: Wishes) -> None:
    """A volume's own keys."""
    check_keys(wishes, _VOLUME)


def check_share(wishes: Wishes) -> None:
    """A folder of the host, which must not lead to our own state unless it is named for just that."""
    wishes.shared_folder(("source",), wishes.spec["source"])


def check_device(wishes: Wishes) -> None:
    """A device of the host; emulated ones are nobody's."""
    match = wishes.spec.get("match", {})
    if "unix" in match:
        wishes.device_node(("match", "unix"), match["unix"])
    for part in ("pci", "gpu"):
        if part in match:
            wishes.pci(("match", part), match[part])
    if "usb" in match:
        usb = match["usb"]
        wishes.usb(("match", "usb"), f"{usb.get('vendor', '*')}:{usb.get('product', '*')}")
