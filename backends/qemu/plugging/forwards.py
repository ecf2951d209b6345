"""APPLY and OBSERVE: ports of the host that lead into the guest, through the user-mode network of its first such NIC.

QMP has no command for them: they are asked for in the words of QEMU's own monitor, of which every word is made here
from checked parts. Of the answers only "nothing" is a success.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address

from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.plugging.live import Live
from reconciler.model import Json, Spec
from reconciler.problems import Problem, Refused

SECTION = "forwards"
_RULE = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)", re.MULTILINE)
_HUB = re.compile(r"^Hub -?\d+ \((\S+)\):", re.MULTILINE)

Rule = tuple[str, str, int, int]
"""Protocol, address and port on the host, port in the guest."""


def converge(live: Live) -> None:
    """Have QEMU forward what is wanted and nothing else. Refused when a port cannot be had."""
    wanted = {rule_of(name, one, live.subject): name for name, one in live.spec.get(SECTION, {}).items()}
    if not wanted and not live.record.plugged:
        return
    there = forwards(ask(live.monitor, "info usernet"))
    for netdev, rules in there.items():
        for rule in rules - wanted.keys():
            protocol, address, port, _ = rule
            _tell_monitor(live, f"hostfwd_remove {netdev} {protocol}:{address}:{port}", "removed")
    missing = wanted.keys() - {rule for rules in there.values() for rule in rules}
    if not missing:
        return
    netdev = _netdev(live, wanted[next(iter(missing))])
    for rule in sorted(missing):
        protocol, address, port, inner = rule
        live.tell(f"forwarding {address}:{port}")
        try:
            _tell_monitor(live, f"hostfwd_add {netdev} {protocol}:{address}:{port}-:{inner}", "")
        except Refused as error:
            what = f"forwards.{wanted[rule]}: {address}:{port} cannot be had on this host"
            hint = "another program listens there, or the address is not this host's"
            raise Refused(Problem(what, subject=live.subject, hint=hint)) from error


def rule_of(name: str, one: Spec, subject: str) -> Rule:
    """A declared forward; Refused when its address is not one that QEMU's user-mode network takes."""
    address, _, port = str(one["listen"]).rpartition(":")
    try:
        IPv4Address(address)
    except AddressValueError as error:
        what = f"forwards.{name}.listen: QEMU's user-mode network takes IPv4 addresses only, got {address}"
        raise Refused(Problem(what, subject=subject, hint='such as "127.0.0.1:8080"')) from error
    return str(one.get("protocol", "tcp")), address, int(port), int(one["port"])


def forwards(said: str) -> dict[str, set[Rule]]:
    """By netdev, from the words of ``info usernet``."""
    parts = _HUB.split(said)
    return {
        netdev: {(kind.lower(), address, int(port), int(inner)) for kind, address, port, inner in _RULE.findall(table)}
        for netdev, table in zip(parts[1::2], parts[2::2], strict=True)
    }


def ask(monitor: Monitor, line: str) -> str:
    """A command of the human monitor, and what it said."""
    return str(monitor.execute("human-monitor-command", {"command-line": line}))


def seen(said: str, declared: Mapping[str, Spec]) -> dict[str, Json]:
    """The declared forwards that QEMU has."""
    there = {rule for rules in forwards(said).values() for rule in rules}
    return {name: dict(one) for name, one in declared.items() if rule_of(name, one, "") in there}


def _netdev(live: Live, name: str) -> str:
    for nic, one in live.spec.get("nics", {}).items():
        if one["type"] == "user":
            return f"net-{nic}"
    what = f"forwards.{name}: the machine has no NIC of type user to forward through"
    raise Refused(Problem(what, subject=live.subject, hint="give it one: nics: [{name: net, type: user}]"))


def _tell_monitor(live: Live, line: str, fine: str) -> None:
    said = ask(live.monitor, line).strip()
    if said and not (fine and fine in said):
        raise Refused(Problem(f"QEMU refused {line.split(maxsplit=1)[0]}: {said}", subject=live.subject))
