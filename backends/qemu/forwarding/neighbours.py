"""APPLY, in the forwarder: where a guest is right now: the addresses that the kernel has seen its network card use.

The kernel's neighbour tables know that of every machine it has spoken to of late. Of one that it has not, it learns by
asking: a datagram to every address around the bridge's own makes it ask for each of them who has it.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from reconciler.backends.qemu.forwarding.rules import ANY, Rule

_GET_ADDRESSES, _GET_NEIGHBOURS = 22, 30
_REQUEST_DUMP = 0x301
_DONE, _ERROR = 3, 2
_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=B3xiHBB")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_DESTINATION, _LINK_ADDRESS, _CACHE = 1, 2, 3
_LOCAL = 2
_REACHABLE, _USABLE = 0x02, 0x02 | 0x04 | 0x08 | 0x10 | 0x80
"""States of a neighbour: answered a moment ago; ever answered, and not given up since."""
_DISCARD = 9
_AROUND = 24
"""Bits of prefix: nobody further away is asked for, however wide the network."""
_REST = 2.0
"""Seconds between two times that everybody is asked for."""
_FRESH = 0.05
"""Seconds that one look at the tables is good for: many may want to know at the same time."""


class _Neighbour(NamedTuple):
    """In the order of trust. unsure: it has not answered just now; age: clock ticks since it was known to be right."""

    unsure: bool
    age: int
    address: str
    device: str
    card: bytes


_MOST = 8
"""Addresses that a card may be suggested at."""
_swept: dict[int, float] = {}
_suggested: dict[str, list[str]] = {}
_looked: list[tuple[float, list[_Neighbour]]] = []

Place = tuple[str, str]
"""An address, and the device that leads there."""


def find(rule: Rule) -> list[Place]:
    """Where the guest has been seen, the surest and latest first."""
    card = bytes.fromhex(rule.mac.replace(":", ""))
    return [(one.address, one.device) for one in _table() if one.card == card and rule.device in (ANY, one.device)]


def suggest(card: str, addresses: list[str]) -> None:
    """Where to ask for it, too. Raises OSError when one is not an IPv4 address.

    Somebody else's word: all it leads to is that the network is asked who has that address.
    """
    _suggested[card] = [socket.inet_ntoa(socket.inet_aton(address)) for address in addresses[:_MOST]]


def sweep(rule: Rule) -> bool:
    """Have the kernel ask for everybody around the bridge's own address, and wherever the guest was suggested to be.

    Whether it does. The answers take a moment.
    """
    index = _index(rule.device)
    if index is None or time.monotonic() - _swept.get(index, -_REST) < _REST:
        return False
    _swept[index] = time.monotonic()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        bind_to(sock, rule.device)
        for address in (*_suggested.get(rule.mac, ()), *_around(index)):
            with suppress(OSError):
                sock.sendto(b"", (address, _DISCARD))
    return True


def bind_to(sock: socket.socket, device: str) -> None:
    """Nothing of it leaves through any other device: a guest may claim any address there is, and gets only its own."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")


def _table() -> list[_Neighbour]:
    """Everybody that this host knows, best first."""
    if not _looked or time.monotonic() - _looked[0][0] > _FRESH:
        try:
            _looked[:] = [(time.monotonic(), sorted(_neighbours()))]
        except OSError:
            return []  # too many sockets are open on this host; the next look may do
    return _looked[0][1]


def _neighbours() -> Iterator[_Neighbour]:
    for body in _dump(_GET_NEIGHBOURS, _NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
        parts = _attributes(body, _NEIGHBOUR.size)
        if not state & _USABLE or len(parts.get(_DESTINATION, b"")) != 4 or _LINK_ADDRESS not in parts:
            continue
        age = struct.unpack_from("=I", parts[_CACHE])[0] if _CACHE in parts else 0
        with suppress(OSError):  # its device has just gone
            address, device = socket.inet_ntoa(parts[_DESTINATION]), socket.if_indextoname(index)
            yield _Neighbour(not state & _REACHABLE, age, address, device, parts[_LINK_ADDRESS])


def _around(index: int) -> Iterator[str]:
    for body in _dump(_GET_ADDRESSES, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, prefix, _, _, device = _ADDRESS.unpack_from(body)
        local = _attributes(body, _ADDRESS.size).get(_LOCAL)
        if device != index or local is None or prefix > 30:
            continue
        own, size = int.from_bytes(local, "big"), 1 << (32 - max(prefix, _AROUND))
        first = own & ~(size - 1)
        for number in range(first + 1, first + size - 1):
            if number != own:
                yield socket.inet_ntoa(number.to_bytes(4, "big"))


def _index(device: str) -> int | None:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return None


def _dump(kind: int, question: bytes) -> Iterator[bytes]:
    """The bodies of the kernel's answer to one question about its tables."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.sendall(_HEADER.pack(_HEADER.size + len(question), kind, _REQUEST_DUMP, 1, 0) + question)
        while True:
            answer, at = sock.recv(1 << 17), 0
            while at < len(answer):
                length, said, _, _, _ = _HEADER.unpack_from(answer, at)
                if said == _ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, at + _HEADER.size)[0], "netlink")
                if said == _DONE:
                    return
                yield answer[at + _HEADER.size : at + length]
                at += (length + 3) & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        found[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return found
