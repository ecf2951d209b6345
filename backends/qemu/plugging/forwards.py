"""APPLY and OBSERVE: ports of the host that lead into the guest. Two ways: QEMU's own, through the user-mode network of
its first such NIC; else a forwarder beside QEMU, through the first NIC on a bridge.

QMP has no command for the first: it is asked for in the words of QEMU's own monitor, of which every word is made here
from checked parts. Of the answers only "nothing" is a success.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from uuid import UUID

from reconciler.backends.qemu import hosting, machine
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.forwarding import keeper, rules
from reconciler.backends.qemu.plugging import nics
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.records import Record
from reconciler.model import Spec
from reconciler.problems import Problem, Refused

SECTION = "forwards"
_RULE = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)", re.MULTILINE)
_UNBORN = str(UUID(int=0))
_HUB = re.compile(r"^Hub -?\d+ \((\S+)\):", re.MULTILINE)

Rule = tuple[str, str, int, int]
"""Protocol, address and port on the host, port in the guest."""


@dataclass(slots=True)
class Ways:
    """The declared forwards by the way they go: what is asked of QEMU, and of the forwarder → their names.

    netdev: QEMU's user-mode network, if it has one
    """

    netdev: str | None = None
    by_qemu: dict[Rule, str] = field(default_factory=dict)
    by_forwarder: dict[rules.Rule, str] = field(default_factory=dict)


def ways(spec: Spec, birth: str, subject: str) -> Ways:
    """Which goes where. Refused when one has no way. birth: as in Record, for the cards' addresses."""
    nics = spec.get("nics", {})
    user = next((name for name, one in nics.items() if one["type"] == "user"), None)
    card = next((name for name, one in nics.items() if one["type"] != "user"), None)
    found = Ways(None if user is None else f"net-{user}")
    for name, one in spec.get(SECTION, {}).items():
        four = _is_four(name, one, subject)
        if user is not None and four:
            found.by_qemu[rule_of(one)] = name
        elif card is not None:
            device = nics[card].get("bridge") if nics[card]["type"] == "bridge" else None
            mac = machine.mac_of(birth, card, nics[card]).lower()
            given = str(one.get("protocol", "tcp")), str(one["listen"]), int(one["port"])
            found.by_forwarder[rules.Rule(*given, mac, str(device or rules.ANY))] = name
        else:
            raise _no_way(name, one, user is not None, subject)
    return found


def with_own(spec: Spec, record: Record) -> Spec:
    """The spec with the way to the LXD inside among its forwards."""
    return {**spec, SECTION: {**spec.get(SECTION, {}), **hosting.forward(spec, record)}}


def check(spec: Spec, subject: str) -> None:
    """Refused when a declared forward has no way into the guest."""
    ways(spec, _UNBORN, subject)


def converge(live: Live) -> None:
    """Have forwarded what is wanted and nothing else. Refused when a port cannot be had."""
    if not live.booted or live.record.lxd_port is None:
        live.record = hosting.with_port(live.folder, live.record, live.spec)
    wanted = ways(with_own(live.spec, live.record), live.record.birth, live.subject)
    if wanted.by_qemu or (live.booted and _has_user_network(live)):
        _converge_qemu(live, wanted)
    if wanted.by_forwarder or keeper.is_alive(live.folder):
        live.save()
    keeper.converge(live.folder, live.record, wanted.by_forwarder, live.tell, fresh=not live.booted)


def _has_user_network(live: Live) -> bool:
    """Whether it has, or had, one that QEMU could forward through."""
    cards = (part for id, part in live.record.plugged.items() if id.startswith(nics.PREFIX))
    return any(part["type"] == "user" for part in cards)


def _converge_qemu(live: Live, ways: Ways) -> None:
    wanted = ways.by_qemu
    there = forwards(ask(live.monitor, "info usernet"))
    if set().union(*there.values()) != wanted.keys():
        live.save()
    for netdev, found in there.items():
        for rule in found - wanted.keys():
            protocol, address, port, _ = rule
            _tell_monitor(live, f"hostfwd_remove {netdev} {protocol}:{address}:{port}", "removed")
    missing = wanted.keys() - {rule for found in there.values() for rule in found}
    for rule in sorted(missing):
        protocol, address, port, inner = rule
        live.tell(f"forwarding {address}:{port}")
        try:
            _tell_monitor(live, f"hostfwd_add {ways.netdev} {protocol}:{address}:{port}-:{inner}", "")
        except Refused as error:
            what = f"forwards.{wanted[rule]}: {address}:{port} cannot be had on this host"
            hint = "another program listens there, or the address is not this host's"
            raise Refused(Problem(what, subject=live.subject, hint=hint)) from error


def rule_of(one: Spec) -> Rule:
    """A declared forward whose address was checked."""
    address, _, port = str(one["listen"]).rpartition(":")
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


def _is_four(name: str, one: Spec, subject: str) -> bool:
    address = str(one["listen"]).rpartition(":")[0]
    try:
        return ip_address(address.strip("[]")).version == 4
    except ValueError as error:
        what = f'forwards.{name}.listen: expected an address and a port, got "{one["listen"]}"'
        raise Refused(Problem(what, subject=subject, hint='such as "127.0.0.1:8080"')) from error


def _no_way(name: str, one: Spec, user: bool, subject: str) -> Refused:
    if user:
        what = f"forwards.{name}.listen: QEMU's user-mode network takes IPv4 addresses only, got {one['listen']}"
        hint = 'such as "127.0.0.1:8080"; through a NIC of type bridge, any address will do'
    else:
        what = f"forwards.{name}: the machine has no NIC to forward through"
        hint = "give it one: nics: [{name: net, type: user}]"
    return Refused(Problem(what, subject=subject, hint=hint))


def _tell_monitor(live: Live, line: str, fine: str) -> None:
    said = ask(live.monitor, line).strip()
    if said and not (fine and fine in said):
        raise Refused(Problem(f"QEMU refused {line.split(maxsplit=1)[0]}: {said}", subject=live.subject))
