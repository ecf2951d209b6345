"""OBSERVE: asks every backend at once, one bulk read each → World. A failure leaves a Problem, never a void.

Where ports are forwarded, also what this machine listens on: a port that is taken is told before anything is done;
and what listens in guests whose ports are followed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import MappingProxyType

from reconciler.model import Power, ResourceId, Snapshot, World
from reconciler.ports import Backend
from reconciler.problems import BackendError
from reconciler.sockets import TABLES, Socket, parse


def observe(
    backends: Mapping[str, Backend],
    only: Mapping[str, Collection[ResourceId] | None] | None = None,
    listening: bool = False,
    followed: Mapping[str, Collection[ResourceId]] = MappingProxyType({}),
) -> World:
    """One fresh look. ``only``: backend name → what to look at there (None: everything); None looks at everything.
    ``listening``: look at this machine's open ports as well; ``followed``: and at those of these guests."""
    taken = read_listening() if listening else frozenset()
    names = [name for name in backends if only is None or name in only]
    if len(names) == 1:  # the usual case needs no thread
        snapshots = {names[0]: _look(backends[names[0]], only[names[0]] if only else None)}
        return World(snapshots, taken, _heard(backends, snapshots, followed))
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=max(1, len(names)), thread_name_prefix="observe") as pool:
        looks = {name: pool.submit(_look, backends[name], only[name] if only else None) for name in names}
        snapshots = {name: look.result() for name, look in looks.items()}
    return World(snapshots, taken, _heard(backends, snapshots, followed))


def _look(backend: Backend, only: Collection[ResourceId] | None) -> Snapshot:
    try:
        return backend.observe(only)
    except BackendError as error:
        return Snapshot(backend.name, time.time(), {}, error.problem)


def read_listening(proc: str = "/proc/net") -> frozenset[Socket]:
    """Every open socket of this machine that others can talk to; what cannot be read is nothing."""
    found: set[Socket] = set()
    for table, protocol in TABLES.items():
        with suppress(OSError), open(f"{proc}/{table}", encoding="ascii") as file:
            found.update(parse(file.read(), protocol))
    return frozenset(found)


def _heard(
    backends: Mapping[str, Backend], snapshots: Mapping[str, Snapshot], followed: Mapping[str, Collection[ResourceId]]
) -> dict[ResourceId, frozenset[Socket]]:
    """What listens inside of those that run; one that does not say is left out."""
    heard = {}
    for name, ids in followed.items():
        for id in ids:
            seen = snapshots[name].resources.get(id) if name in snapshots else None
            if seen is not None and seen.power is Power.RUNNING:
                with suppress(BackendError):
                    heard[id] = backends[name].listening(id)
    return heard
