"""APPLY: memory given to a guest and asked back while it runs.

QEMU answers at once, and it is the guest that moves memory, a piece at a time, or does not. So every request is
followed until it is met; one that is not ends as a problem with numbers in it, and nothing stays asked of the guest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.sizing import Memory, memory_from
from reconciler.problems import BackendError, GuestFailed, Problem, Refused

_PAUSE = 0.1
_STUCK = 3.0
"""The same for memory that is plugged in, of which some may hold what cannot be moved: then there is another way."""
_RESERVE = 16 << 20
"""Bytes that have to stay available in the guest after it has given some back: its agent, for one, shall go on."""
_DEVICE = "/machine/peripheral/memory"


def converge(live: Live, patience: float) -> None:
    """The memory that is wanted, in use or given back. Refused when it cannot be; GuestFailed when the guest does not
    follow: ``patience`` is how many seconds it may make no progress."""
    found = look(live)
    wanted = found.fitting(int(live.spec["memory"]["size"]))
    if wanted == found.size:
        return
    if wanted > found.most:
        what = f"it can have {found.most >> 20} MiB while it runs, wanted are {wanted >> 20} MiB"
        hint = "restart the guest: it then starts with as much as is declared"
        raise Refused(Problem(f"memory.size: {what}", subject=live.subject, hint=hint))
    if live.monitor.execute("query-status")["status"] != "running":
        raise Refused(Problem("memory.size: it changes only while the guest runs", subject=live.subject))
    live.tell(f"memory: {found.size >> 20} MiB → {wanted >> 20} MiB")
    if wanted < found.size:
        _check_spare(live, found.size - wanted)
    _move(live, found, wanted, patience)
    reached = look(live)
    if reached.size != wanted:
        _request(live, reached, reached.plugged)
        _keep(live, found.kept if wanted < found.size else reached.kept)
        raise _unmet(live, reached.size - found.size, wanted - found.size)


def _move(live: Live, found: Memory, wanted: int, patience: float) -> None:
    """What is plugged in goes first, and what the guest cannot get off of it (where its kernel keeps things that do
    not move) goes into the balloon instead; what the guest gets comes out of the balloon first."""
    above, plugged = max(0, wanted - found.base), found.plugged
    if above < plugged:
        _request(live, found, above)
        plugged = _follow(lambda: look(live).plugged, above, min(patience, _STUCK))
        _request(live, found, plugged)
    kept = wanted - max(above, plugged)
    if kept != found.kept:
        _keep(live, kept)
        _follow(lambda: look(live).kept, kept, patience)
    if above > plugged:
        _request(live, found, above)
        _follow(lambda: look(live).plugged, above, patience)


def look(live: Live) -> Memory:
    """What QEMU says that it has."""
    monitor = live.monitor
    try:
        balloon = monitor.execute("query-balloon")["actual"]
    except Refused:
        balloon = None
    return memory_from(monitor.execute("query-memory-size-summary"), monitor.execute("query-memory-devices"), balloon)


def _request(live: Live, found: Memory, size: int) -> None:
    """How much of what can be plugged in the guest is to have."""
    if found.room:
        live.monitor.execute("qom-set", {"path": _DEVICE, "property": "requested-size", "value": size})


def _keep(live: Live, size: int) -> None:
    """How much of its base the guest is to be left with."""
    live.monitor.execute("balloon", {"value": size})


def _follow(now: Callable[[], int], wanted: int, patience: float) -> int:
    """Where it has got to: there, or as far as it went before it stood still."""
    nearest, since = now(), time.monotonic()
    while nearest != wanted and time.monotonic() - since < patience:
        Event().wait(_PAUSE)
        if abs((size := now()) - wanted) < abs(nearest - wanted):
            nearest, since = size, time.monotonic()
    return nearest


def _check_spare(live: Live, less: int) -> None:
    """A guest without memory to spare would give away the last of it, and stand still: ask it before."""
    spare = _available(live)
    if spare is not None and less > spare - _RESERVE:
        what = f"it is to give back {less >> 20} MiB, and has {spare >> 20} MiB to spare"
        hint = "restart the guest: it then starts with as much as is declared"
        raise Refused(Problem(f"memory.size: {what}", subject=live.subject, hint=hint))


def _available(live: Live) -> int | None:
    """By the guest's own word; None when it has nobody to tell us."""
    if not live.spec.get("guestAgent", True):
        return None
    with suppress(BackendError), Agent(live.folder.agent, live.subject) as agent:
        told = re.search(rb"^MemAvailable:\s+(\d+) kB", agent.read_file("/proc/meminfo"), re.MULTILINE)
        return int(told[1]) << 10 if told else None
    return None


def _unmet(live: Live, done: int, asked: int) -> GuestFailed:
    verb = "took" if asked > 0 else "gave back"
    what = f"memory.size: the guest {verb} {abs(done) >> 20} of {abs(asked) >> 20} MiB"
    hint = "has it booted, has it the drivers virtio-mem and virtio-balloon, and memory to spare?"
    return GuestFailed(Problem(what, subject=live.subject, hint=hint))
