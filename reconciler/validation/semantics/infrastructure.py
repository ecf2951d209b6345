"""VALIDATE: networks, forwarded ports, and LXD's kinds that are passed on as they are."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.desired import AUTO
from reconciler.sockets import split_listen
from reconciler.validation.findings import Notes
from reconciler.validation.semantics.raw import config, devices, overlaps

Spec = Mapping[str, Any]

_FIELD_OF_KEY = {
    **{f"ipv{v}.{name}": f"ipv{v}.{name}" for v in (4, 6) for name in ("address", "nat", "dhcp")},
    "dns.domain": "dns.domain",
}


def raw(notes: Notes, spec: Spec) -> None:
    """A Profile, StoragePool or Project."""
    if "config" in spec:
        config(notes, ("spec", "config"), spec["config"])
        overlaps(notes, spec, {"source": "source"})
    if "devices" in spec:
        devices(notes, ("spec", "devices"), spec["devices"])


def network(notes: Notes, spec: Spec) -> None:
    """A Network."""
    for version in (4, 6):
        if f"ipv{version}" in spec:
            _addresses(notes, version, spec[f"ipv{version}"])
    if "config" in spec:
        config(notes, ("spec", "config"), spec["config"])
        overlaps(notes, spec, _FIELD_OF_KEY)


def _addresses(notes: Notes, version: int, given: Spec) -> None:
    address, path = given.get("address", "auto"), ("spec", f"ipv{version}", "address")
    if address == "none":
        for name in ("nat", "dhcp"):
            if given.get(name):
                notes.note((*path[:2], name), "contradicts address: none", "take one of the two out")
    elif address != "auto":
        _interface(notes, version, address, path)


def _interface(notes: Notes, version: int, given: str, path: tuple[str, ...]) -> None:
    example = "10.20.30.1/24" if version == 4 else "fd42:20:30::1/64"
    try:
        interface = ipaddress.ip_interface(given)
    except ValueError as error:
        notes.note(path, f'expected an address such as "{example}", got "{given}": {error}')
        return
    network = interface.network
    if interface.version != version:
        notes.note(path, f"expected an IPv{version} address, got {given}", f'such as "{example}"')
    elif interface.ip.is_loopback or interface.ip.is_multicast or interface.ip.is_unspecified:
        notes.note(path, f"{given} cannot be the address of a bridge", f'such as "{example}"')
    elif network.num_addresses < 4:
        notes.note(path, f"{given} leaves no address for guests", f'a bigger network, such as "{example}"')
    elif version == 4 and interface.ip in (network.network_address, network.broadcast_address):
        first = network.network_address + 1
        notes.note(path, f"{given} is no host's address", f'did you mean "{first}/{network.prefixlen}"?')


def port_forward(notes: Notes, spec: Spec) -> None:
    """A PortForward."""
    if "listen" not in spec:
        return
    path = ("spec", "listen")
    followed = spec.get("port") == AUTO
    address, port = split_listen(spec["listen"])
    if followed and port:
        hint = "each port listens under its own number"
        notes.note(path, f'port: auto takes an address without a port, such as "{address}"', hint)
    for rule in ("allow", "deny"):
        _check_ranges(notes, spec.get(rule, ()), rule, followed)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        notes.note(path, f'expected an address and port such as "127.0.0.1:8080", got "{spec["listen"]}"')
    if not followed and not 1 <= int(port or "0") <= 65535:
        notes.note(path, f"expected a port from 1 to 65535, got {port or 'none'}")


def _check_ranges(notes: Notes, given: Sequence[int | str], rule: str, followed: bool) -> None:
    """The ports that are followed, or are not."""
    if given and not followed:
        notes.note(("spec", rule), f"{rule}: only with port: auto", "take it out")
    for index, one in enumerate(given):
        first, _, last = str(one).partition("-")
        if not 1 <= int(first) <= int(last or first) <= 65535:
            notes.note(("spec", rule, index), f"expected ports from 1 to 65535, the smaller one first, got {one}")
