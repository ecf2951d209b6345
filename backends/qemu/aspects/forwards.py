"""OBSERVE: the ports of the host that lead into the guest, by the word of QEMU and of the VM's forwarder."""

from __future__ import annotations

from reconciler.backends.qemu import hosting
from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.forwarding import keeper
from reconciler.backends.qemu.plugging import forwards
from reconciler.backends.qemu.plugging.forwards import Ways
from reconciler.backends.qemu.records import Record
from reconciler.model import Spec
from reconciler.problems import BackendError, Refused


def questions(record: Record) -> dict[str, Command]:
    """Only where QEMU was ever to forward anything: most machines have none."""
    if not _ways(record, record.applied or {}).by_qemu:
        return {}
    return {"usernet": ("human-monitor-command", {"command-line": "info usernet"})}


def read(view: View) -> Reading:
    """The declared ones that are there."""
    declared, ways = view.declared(forwards.SECTION), _ways(view.record, view.spec)
    said = view.answers.get("usernet", "")
    if isinstance(said, BackendError):
        return Reading({})
    there = {rule for rules in forwards.forwards(said).values() for rule in rules}
    names = {name for rule, name in ways.by_qemu.items() if rule in there}
    whole, astray = _by_forwarder(view, ways)
    names |= whole
    lost = {"lxd": False} if hosting.NAME in {*ways.by_qemu.values(), *ways.by_forwarder.values()} - names else {}
    if not declared:
        return Reading(lost)
    found = {name: dict(one) for name, one in declared.items() if name in names | astray}
    for name in found.keys() & astray:
        del found[name]["port"]
    return Reading(lost | {forwards.SECTION: found or None})


def _by_forwarder(view: View, ways: Ways) -> tuple[set[str], set[str]]:
    """Those that lead to their port; those that listen, and lead elsewhere or nowhere: nobody else listens there."""
    if not ways.by_forwarder:
        return set(), set()
    there = keeper.seen(view.folder)
    keys = {rule.key for rule in (ways.by_forwarder if there is None else there)}
    whole = {name for rule, name in ways.by_forwarder.items() if rule in (there or frozenset())}
    return whole, {name for rule, name in ways.by_forwarder.items() if rule.key in keys} - whole


def _ways(record: Record, spec: Spec) -> Ways:
    try:
        return forwards.ways(forwards.with_own(spec, record), record.birth, record.id)
    except Refused:
        return Ways()
