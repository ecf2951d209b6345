"""OBSERVE: device nodes that a guest could be given: serial ports, whole disks and partitions, the TPM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.host import ROOT, entries, link_name, text_of

SERIAL, BLOCK, TPM = "serial", "block", "tpm"
_SECTOR = 512
_VIRTUAL_BLOCKS = ("ram", "zram")
_NO_UART = "0"


@dataclass(frozen=True, slots=True)
class Node:
    """kind: SERIAL, BLOCK or TPM; path: below /dev; size: of a disk, in bytes

    driver: the host's; words: what the device calls itself, as far as it does
    """

    kind: str
    path: str
    driver: str | None = None
    size: int | None = None
    words: str | None = None


def nodes(root: Path = ROOT) -> list[Node]:
    """Those that have hardware, or at least something, behind them."""
    return [*_serials(root), *_blocks(root), *_tpms(root)]


def _serials(root: Path) -> list[Node]:
    """Terminals that a driver serves; the virtual consoles and pseudo-terminals are no devices."""
    found = []
    for entry in entries(root / "sys/class/tty"):
        device = entry / "device"
        if device.exists() and text_of(entry / "type") != _NO_UART:
            found.append(Node(SERIAL, f"/dev/{entry.name}", link_name(device / "driver")))
    return found


def _blocks(root: Path) -> list[Node]:
    """Those that hold something: a loop device without a file, a drive without a medium have no size."""
    found = []
    for entry in entries(root / "sys/class/block"):
        size = int(text_of(entry / "size") or 0) * _SECTOR
        if not size or entry.name.startswith(_VIRTUAL_BLOCKS):
            continue
        said = (text_of(entry / f"device/{name}") or "" for name in ("vendor", "model"))
        words = " ".join(word for word in said if word and not word.startswith("0x"))
        found.append(Node(BLOCK, f"/dev/{entry.name.replace('!', '/')}", _driver(entry), size, words or None))
    return found


def _driver(entry: Path) -> str | None:
    return link_name(entry / "device/driver") or link_name(entry / "subsystem")


def _tpms(root: Path) -> list[Node]:
    found = []
    for entry in entries(root / "sys/class/tpm"):
        version = text_of(entry / "tpm_version_major")
        found.append(Node(TPM, f"/dev/{entry.name}", link_name(entry / "device/driver"), None, version))
    return found
