"""OBSERVE: what a QEMU's answers mean in the manifest's words, one aspect of the machine a module.

Each aspect has two functions:

    questions(record)   what it wants to ask the monitor: key → QMP command (some tenths of a millisecond each)
    read(view)          what the answers say: fields of the spec, rules and conditions of this very machine

and, where only the guest can tell, a third:

    files(record)       which files of the guest's the agent is asked for; their contents are in ``view.word``
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from reconciler.backends.qemu.aspects import devices, disks, forwards, hardware, hosting, nics, shares, sizing, tpm
from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.records import Record

__all__ = ["REQUIRED", "Command", "Reading", "View", "files", "questions", "read"]

REQUIRED = ("peripheral", "kvm", "cpu-slots", "memory", "memory-devices", "type", "pci", "blocks")
"""What every QEMU that we support answers: one that refuses is not understood, and left alone."""

ASPECTS: Sequence[ModuleType] = (hardware, sizing, disks, nics, devices, shares, hosting, forwards, tpm)


TOLD: Sequence[ModuleType] = (sizing, disks, shares, hosting)
"""Those that ask the guest, too."""


def files(record: Record) -> list[str]:
    """What the guest is asked for; nothing, for most machines: then its agent is not troubled at all."""
    if not (record.applied or {}).get("guestAgent", True):
        return []
    return sorted({path for aspect in TOLD for path in aspect.files(record)})


def questions(record: Record) -> dict[str, Command]:
    """Everything that this machine's monitor is asked, in one exchange."""
    asked: dict[str, Command] = {"peripheral": ("qom-list", {"path": "/machine/peripheral"})}
    for aspect in ASPECTS:
        asked |= aspect.questions(record)
    return asked


def read(view: View) -> Reading:
    """All aspects' readings. A field of the spec that is None is not there."""
    readings = [aspect.read(view) for aspect in ASPECTS]
    return Reading(
        {field: value for one in readings for field, value in one.spec.items()},
        {pattern: rule for one in readings for pattern, rule in one.rules.items()},
        tuple(condition for one in readings for condition in one.conditions),
        next((one.room for one in readings if one.room is not None), None),
    )
