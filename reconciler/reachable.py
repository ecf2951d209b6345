"""Beside the flow: which addresses this host reaches without a router in between, as its own routes say."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV4, _IPV6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
_UP, _GATEWAY = 0x1, 0x2


def neighbours(addresses: Iterable[str], networks: Iterable[Network]) -> list[str]:
    """Those that lie in one of the networks. A guest says what its addresses are; whatever else it says is left out,
    and so is an address with a zone (``%``), which may be any text: whoever asks writes the addresses into files."""
    known, found = list(networks), []
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if "%" not in text and not address.is_loopback and any(address in network for network in known):
            found.append(str(address))
    return found


def own_networks() -> list[Network]:
    """The networks that this host has a card in."""
    return [*ipv4_networks(_read(_IPV4)), *ipv6_networks(_read(_IPV6))]


def ipv4_networks(table: str) -> Iterator[Network]:
    """From ``/proc/net/route``: hexadecimal in the processor's order, which is taken to be little-endian."""
    for line in table.splitlines()[1:]:
        parts = line.split()
        if len(parts) > 7 and int(parts[3], 16) & (_UP | _GATEWAY) == _UP and int(parts[7], 16):
            start, mask = (bytes.fromhex(parts[column])[::-1] for column in (1, 7))
            yield ipaddress.ip_network((start, bin(int.from_bytes(mask, "big")).count("1")), strict=False)


def ipv6_networks(table: str) -> Iterator[Network]:
    """From ``/proc/net/ipv6_route``; links' own networks and this host's addresses are none."""
    for line in table.splitlines():
        parts = line.split()
        if len(parts) < 10 or int(parts[8], 16) & (_UP | _GATEWAY) != _UP or parts[9] == "lo":
            continue
        network = ipaddress.ip_network((bytes.fromhex(parts[0]), int(parts[1], 16)))
        if 0 < network.prefixlen < 128 and not network.is_link_local and not network.is_multicast:
            yield network


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""  # a host without that protocol
