"""OBSERVE: the ports of the host that QEMU forwards into the guest."""

from __future__ import annotations

from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.plugging import forwards
from reconciler.backends.qemu.records import Record
from reconciler.problems import BackendError


def questions(record: Record) -> dict[str, Command]:
    """Only where forwards were ever wanted: most machines have none."""
    if not (record.applied or {}).get(forwards.SECTION):
        return {}
    return {"usernet": ("human-monitor-command", {"command-line": "info usernet"})}


def read(view: View) -> Reading:
    """The declared ones that QEMU has."""
    declared = view.declared(forwards.SECTION)
    said = view.answers.get("usernet", "")
    if not declared or isinstance(said, BackendError):
        return Reading({})
    return Reading({forwards.SECTION: forwards.seen(said, declared) or None})
