"""Beside the flow: what listens on a machine, as its kernel's own tables say it. Pure: others read the tables."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator, Mapping

Socket = tuple[str, str, int]
"""Protocol (``tcp`` or ``udp``), address, port."""

TABLES: Mapping[str, str] = {"tcp": "tcp", "tcp6": "tcp", "udp": "udp", "udp6": "udp"}
"""File below ``/proc/net`` → protocol."""
_OPEN = {"tcp": "0A", "udp": "07"}  # LISTEN; bound, and connected to nobody
_PLACE = re.compile(r"([0-9A-Fa-f]{8}|[0-9A-Fa-f]{32}):([0-9A-Fa-f]{4})")


def split_listen(text: str) -> tuple[str, str]:
    """``127.0.0.1:8080`` or ``[::1]:8080`` → address (without brackets) and port; no port: an empty one."""
    address, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        address, port = text, ""
    return address.strip("[]"), port


def parse(table: str, protocol: str) -> Iterator[Socket]:
    """The sockets in one of the tables that others can talk to; a line that is none is passed over: a guest may say
    anything."""
    for line in table.splitlines():
        row = line.split()
        if len(row) > 3 and row[3] == _OPEN[protocol] and (place := _PLACE.fullmatch(row[1])):
            yield protocol, _address(place[1]), int(place[2], 16)


def _address(written: str) -> str:
    """Each 32-bit word is written in the machine's own byte order, which a guest of ours has in common with us."""
    words = (written[at : at + 8] for at in range(0, len(written), 8))
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
