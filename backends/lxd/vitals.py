"""Behind ``hosts`` and ``top``: where the containers of one LXD are reached, and what they take. One bulk read each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.terms.containers import is_up
from reconciler.model import ResourceId
from reconciler.ports import Usage
from reconciler.reachable import neighbours, own_networks

_ANSWER = 30.0
_NANOSECONDS = 1e9


def addresses(client: Client) -> Mapping[ResourceId, Sequence[str]]:
    """Only of an LXD on this host: elsewhere its networks are somebody else's."""
    if client.address.socket is None:
        return {}
    networks = own_networks()
    found = {_id(raw): neighbours(_global(raw["state"]), networks) for raw in _running(client)}
    return {id: own for id, own in found.items() if own}


def usage(client: Client) -> Mapping[ResourceId, Usage]:
    """As LXD counts it for each container's cgroup."""
    found = {}
    for raw in _running(client):
        state = raw["state"]
        cpu = max(0, int(state["cpu"]["usage"])) / _NANOSECONDS
        started = _moment(str(raw.get("last_used_at") or ""))
        found[_id(raw)] = Usage(cpu, int(state["memory"]["usage"]), int(state["processes"]), started)
    return found


def _running(client: Client) -> Iterator[dict[str, Any]]:
    for raw in client.get("instances", within=Deadline.after(_ANSWER), recursion="2").metadata or ():
        if raw["type"] == "container" and is_up(raw) and raw.get("state"):
            yield raw


def _id(raw: Mapping[str, Any]) -> ResourceId:
    return ResourceId("Container", raw["name"])


def _global(state: Mapping[str, Any]) -> Iterator[str]:
    for device, about in (state.get("network") or {}).items():
        if device != "lo":
            yield from (one["address"] for one in about["addresses"] or () if one["scope"] == "global")


def _moment(text: str) -> float | None:
    """Seconds since the epoch; None for a container that never ran, which LXD gives the year 1970."""
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
    return moment if moment > 0 else None
