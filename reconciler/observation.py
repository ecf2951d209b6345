"""OBSERVE: asks every backend at once, one bulk read each → World. A failure leaves a Problem, never a void.

Where ports are forwarded, also what this machine listens on: a port that is taken is told before anything is done.
"""

from __future__ import annotations

import ipaddress
import sys
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from reconciler.model import ResourceId, Snapshot, World
from reconciler.ports import Backend
from reconciler.problems import BackendError

_TABLES = (("tcp", "tcp"), ("tcp", "tcp6"), ("udp", "udp"), ("udp", "udp6"))
_OPEN = {"tcp": "0A", "udp": "07"}  # LISTEN; bound, and connected to nobody


def observe(
    backends: Mapping[str, Backend],
    only: Mapping[str, Collection[ResourceId]] | None = None,
    listening: bool = False,
) -> World:
    """One fresh look. ``only``: backend name → what to look at there; None looks at everything.
    ``listening``: look at this machine's open ports as well."""
    taken = read_listening() if listening else frozenset()
    names = [name for name in backends if only is None or name in only]
    if len(names) == 1:  # the usual case needs no thread
        return World({names[0]: _look(backends[names[0]], only[names[0]] if only else None)}, taken)
    with ThreadPoolExecutor(max_workers=max(1, len(names)), thread_name_prefix="observe") as pool:
        looks = {name: pool.submit(_look, backends[name], only[name] if only else None) for name in names}
        return World({name: look.result() for name, look in looks.items()}, taken)


def _look(backend: Backend, only: Collection[ResourceId] | None) -> Snapshot:
    try:
        return backend.observe(only)
    except BackendError as error:
        return Snapshot(backend.name, time.time(), {}, error.problem)


def read_listening(proc: str = "/proc/net") -> frozenset[tuple[str, str, int]]:
    """Protocol, address and port of every open socket that others can talk to; what cannot be read is nothing."""
    found = set()
    for protocol, table in _TABLES:
        try:
            with open(f"{proc}/{table}", encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        for row in rows:
            if row[3] == _OPEN[protocol]:
                address, _, port = row[1].partition(":")
                found.add((protocol, _address(address), int(port, 16)))
    return frozenset(found)


def _address(written: str) -> str:
    """Each 32-bit word is written in this machine's own byte order."""
    words = (written[at : at + 8] for at in range(0, len(written), 8))
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
