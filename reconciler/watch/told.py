"""WATCH: what the daemon says of itself, as JSON: its status, and the conditions of its resources."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from reconciler.model import Desired, ResourceId
from reconciler.planning.towers import machines_of
from reconciler.watch.daemon import Daemon


def status(daemon: Daemon) -> dict[str, Any]:
    """Everything that ``reconciler status`` shows."""
    wanted, work, state = daemon.wanted, daemon.work, daemon.status
    why = daemon.may_act()
    return {
        "environment": wanted.environment if wanted else None,
        "pid": os.getpid(),
        "started": moment(state.started),
        "state": _word(daemon),
        "why": why,
        "yieldsTo": state.yields_to,
        "inSync": work.in_sync(),
        "source": dict(daemon.source.status()),
        "problems": [str(problem) for problem in state.problems],
        "names": _names(daemon),
        "history": daemon.runs.trouble,
        "queue": {"waiting": work.queue.depth, "working": sorted(map(str, work.queue.working))},
        "hosts": {id.name: want.spec for id, want in wanted.desired.items() if id.kind == "Host"} if wanted else {},
        "lastResync": moment(state.last_resync) if state.last_resync else None,
        "resources": _resources(daemon, wanted.desired) if wanted else [],
    }


def _names(daemon: Daemon) -> dict[str, Any] | None:
    """Where those of guests are kept, and why not; None when nobody asked for it."""
    kept = daemon.status.names
    if kept is None:
        return None
    looked = moment(daemon.status.named)
    return {"place": kept.place, "lookedAt": looked, "problems": [str(one) for one in kept.problems]}


def _resources(daemon: Daemon, desired: Mapping[ResourceId, Desired]) -> list[dict[str, Any]]:
    """All of them. homes: what may stand before the name of a container: its Host, and the VM that this is in."""
    machines = machines_of(desired)

    def homes(want: Desired) -> list[str]:
        if want.id.kind != "Container":
            return []
        machine = machines.get(want.backend)
        return sorted({want.backend.partition("/")[2], *((machine.name,) if machine else ())})

    return [{**resource(daemon, id), "homes": homes(desired[id])} for id in sorted(desired)]


def _word(daemon: Daemon) -> str:
    if daemon.wanted is None:
        return "waiting"
    if daemon.options.observe:
        return "observing"
    return "suspended" if daemon.may_act() else "on"


def resource(daemon: Daemon, id: ResourceId) -> dict[str, Any]:
    """One resource, its conditions, and what they are from (lookedAt, revision). working: it is just seen to."""
    work = daemon.work
    want, looked = work.wanted.desired.get(id) if work.wanted else None, work.board.looked(id)
    return {
        "id": str(id),
        "backend": want.backend if want else None,
        "lookedAt": moment(looked.at) if looked else None,
        "revision": looked.revision if looked else None,
        "working": id in work.queue.working,
        "conditions": [
            {
                "type": one.condition.type,
                "status": one.condition.status,
                "reason": one.condition.reason,
                "message": one.condition.message,
                "since": moment(one.since),
            }
            for one in work.board.of(id)
        ],
        "failures": work.queue.failures(id),
        "restarts": work.restarts.count(id, time.monotonic()),
    }


def holds(told: Mapping[str, Any], type: str) -> bool:
    """Whether a resource as told above has that condition."""
    return any(one["type"] == type and one["status"] is True for one in told["conditions"])


def moment(at: float) -> str:
    """UTC, as in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
