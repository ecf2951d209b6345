"""OBSERVE: asks every backend at once, one bulk read each → World. A failure leaves a Problem, never a void."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from reconciler.model import ResourceId, Snapshot, World
from reconciler.ports import Backend
from reconciler.problems import BackendError


def observe(backends: Mapping[str, Backend], only: Mapping[str, Collection[ResourceId]] | None = None) -> World:
    """One fresh look. ``only``: backend name → what to look at there; None looks at everything."""
    names = [name for name in backends if only is None or name in only]
    if len(names) == 1:  # the usual case needs no thread
        return World({names[0]: _look(backends[names[0]], only[names[0]] if only else None)})
    with ThreadPoolExecutor(max_workers=max(1, len(names)), thread_name_prefix="observe") as pool:
        looks = {name: pool.submit(_look, backends[name], only[name] if only else None) for name in names}
        return World({name: look.result() for name, look in looks.items()})


def _look(backend: Backend, only: Collection[ResourceId] | None) -> Snapshot:
    try:
        return backend.observe(only)
    except BackendError as error:
        return Snapshot(backend.name, time.time(), {}, error.problem)
