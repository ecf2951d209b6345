"""Ports and subnets that no other test on this machine has, whichever run or process it belongs to.

Each is held by a socket with a name (in Linux' abstract namespace) until this process ends, so nothing is left behind.
"""

from __future__ import annotations

import itertools
import random
import socket

_PORTS = range(20000, 32000)
"""Below those that the kernel itself picks from."""
_NETS = range(96, 208)
"""LXD picks some 10.x.y.1/24 by itself; what is fixed anywhere in manifests lies above."""


def own_port(count: int = 1) -> int:
    """The first of so many free ports in a row, of TCP and of UDP."""
    for first in random.sample(_PORTS[::count], len(_PORTS[::count])):
        if all(_held(f"port-{one}") and _is_free(one) for one in range(first, first + count)):
            return first
    raise AssertionError("every port is taken")


def own_net() -> str:
    """The first half of addresses: ``10.123``."""
    for one in random.sample(_NETS, len(_NETS)):
        if _held(f"net-{one}"):
            return f"10.{one}"
    raise AssertionError("every net is taken")


def own_name(stem: str) -> str:
    """Short enough for a bridge."""
    return next(name for name in (f"rt{stem}{random.randrange(10000)}" for _ in itertools.count()) if _held(name))


def _held(name: str) -> bool:
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0reconciler-test-{name}")
    except OSError:
        holder.close()
        return False
    holder.detach()
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
