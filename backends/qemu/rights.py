"""APPLY: who may open a device node of the host. Each QEMU runs as a user of its own, who may open none by itself.

What can be handed over as an open file is (disks, serial ports). What QEMU has to open itself, again whenever it is
plugged in again (USB), or by its name (VFIO), is given to that user for as long as its machine has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from reconciler.backends.host import ROOT
from reconciler.backends.qemu.records import Record

_RULES = "run/udev/rules.d"
_UDEV = "run/udev/control"
_PLAIN = re.compile(r"[A-Za-z0-9._:-]+")


def hand_over(node: Path, record: Record) -> None:
    """Make it the machine's own. Nothing to do where QEMU runs as ourselves: then it may do what we may."""
    if record.uid is not None and node.exists():
        os.chown(node, record.uid, -1)


def take_back(node: Path, record: Record) -> None:
    """Root's again, if it is the machine's."""
    if record.uid is not None and is_handed_over(node, record):
        os.chown(node, 0, -1)


def is_handed_over(node: Path, record: Record) -> bool:
    """Whether the machine's QEMU may open it."""
    if record.uid is None:
        return os.access(node, os.R_OK | os.W_OK)
    try:
        return node.stat().st_uid == record.uid
    except OSError:
        return False


def promise(id: str, match: Mapping[str, str], record: Record, root: Path = ROOT) -> None:
    """Have udev hand over what matches whenever it is plugged in again: nobody of us may be there then.

    match: sysfs attribute → value, or KERNEL → the device's name. Lasts until the host boots, as the machine does.
    """
    if record.uid is None or not (root / _UDEV).exists() or not all(map(_PLAIN.fullmatch, match.values())):
        return
    keys = [f'{key if key == "KERNEL" else f"ATTR{{{key}}}"}=="{value}"' for key, value in match.items()]
    words = ['SUBSYSTEM=="usb"', 'ENV{DEVTYPE}=="usb_device"', *keys, f'OWNER="{record.uid}"']
    rule = _rule(id, record, root)
    rule.parent.mkdir(parents=True, exist_ok=True)
    rule.write_text(", ".join(words) + "\n", encoding="ascii")


def withdraw(id: str, record: Record, root: Path = ROOT) -> None:
    """Udev leaves it to root from now on."""
    if record.uid is not None:
        _rule(id, record, root).unlink(missing_ok=True)


def _rule(id: str, record: Record, root: Path) -> Path:
    # Late, so that no other rule's owner comes after it.
    return root / _RULES / f"99-reconciler-{record.uuid}-{id}.rules"
