"""OBSERVE: whether the machine has a TPM, and somebody answers behind it."""

from __future__ import annotations

from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.records import Record
from reconciler.problems import BackendError

_GONE = "disconnected:"


def questions(record: Record) -> dict[str, Command]:
    """Only where one is wanted: most machines have none."""
    return {"lines": ("query-chardev", {})} if (record.applied or {}).get("tpm") else {}


def read(view: View) -> Reading:
    """One whose swtpm has ended is none: QEMU does not take another in its place."""
    lines = view.answers.get("lines")
    if lines is None or isinstance(lines, BackendError):
        return Reading({})
    there = any(one["label"] == "tpm" and not one["filename"].startswith(_GONE) for one in lines)
    return Reading({"tpm": there or None})
