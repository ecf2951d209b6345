"""APPLY: network cards, plugged in and out."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reconciler.backends.qemu import machine, taps
from reconciler.backends.qemu.plugging.live import Live
from reconciler.model import Json, Spec
from reconciler.problems import Refused

SECTION, PREFIX = "nics", "nic-"


def declared(live: Live) -> Mapping[str, Spec]:
    """By name."""
    nics: Mapping[str, Spec] = live.spec.get(SECTION, {})
    return nics


def part_of(live: Live, name: str, nic: Spec) -> Json:
    """All of it, with the address that it really gets."""
    return {**nic, "mac": machine.mac_of(live.record.birth, name, nic)}


def is_whole(_live: Live, _name: str) -> bool:
    """A tap lives as long as the QEMU that holds it."""
    return True


def plug(live: Live, name: str, part: Json) -> None:
    """The host's end first, then the card."""
    monitor, netdev = live.monitor, f"net-{name}"
    _drop_netdev(live, name)  # what a try that was cut off has left
    if part["type"] == "user":
        monitor.execute("netdev_add", {"type": "user", "id": netdev})
    else:
        tap = taps.open_tap(live.subject, name, part.get("bridge") if part["type"] == "bridge" else None)
        try:
            monitor.execute_with(tap, "getfd", {"fdname": f"tap-{name}"})
        finally:
            os.close(tap)
        monitor.execute("netdev_add", {"type": "tap", "id": netdev, "fd": f"tap-{name}"})
    live.plug(machine.nic_device(name, part))


def unplug(live: Live, name: str, _part: Json) -> None:
    """The card, then the host's end of it."""
    live.unplug(f"{PREFIX}{name}")
    _drop_netdev(live, name)


def _drop_netdev(live: Live, name: str) -> None:
    try:
        live.monitor.execute("netdev_del", {"id": f"net-{name}"})
    except Refused as error:
        if "not found" not in error.problem.summary:
            raise
