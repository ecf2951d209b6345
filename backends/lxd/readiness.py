"""Accepted is not converged: is a guest what its ``ready`` asks for? Tried once by probe, waited for by apply."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.backends.lxd import session
from reconciler.backends.lxd.client import Client, Missing
from reconciler.backends.lxd.console import Console
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.terms.containers import power_of
from reconciler.model import Condition, Power, Spec
from reconciler.problems import Interrupted, Refused
from reconciler.sockets import parse

READY = "Ready"
_ONE_TRY = 5.0
_CONNECT = 1.0
_CLOUD_RESULT = "/run/cloud-init/result.json"


@dataclass(frozen=True)
class Look:
    """One look at one guest."""

    console: Console
    within: Deadline

    @property
    def client(self) -> Client:
        return self.console.client

    @property
    def name(self) -> str:
        return self.console.name

    @cached_property
    def addresses(self) -> list[str]:
        """Its global addresses, IPv4 first."""
        state = self.client.get("instances", self.name, "state", within=self.within).metadata
        found = [
            address["address"]
            for device, about in (state.get("network") or {}).items()
            if device != "lo"
            for address in about["addresses"] or ()
            if address["scope"] == "global"
        ]
        return sorted(found, key=lambda address: ipaddress.ip_address(address).version)


def conditions(console: Console, ready: Spec) -> tuple[Condition, ...]:
    """Each condition that ``ready`` names, tried once, and ``Ready`` for all of them together."""
    within = Deadline.after(_ONE_TRY)
    power = power_of(console.client.get("instances", console.name, within=within).metadata["status"])
    if power is not Power.RUNNING:
        return _unknown(ready, power)
    look = Look(console, within)
    tried = tuple(_try(look, key, ready[key]) for key in _TRIALS if ready.get(key) not in (None, False))
    return (*tried, _summary(tried))


def wait_until_ready(console: Console, ready: Spec, within: Deadline) -> tuple[Condition, ...]:
    """Try until all hold, the guest goes down, or the deadline passes; the last conditions seen."""
    pause = 0.1
    while True:
        seen = conditions(console, ready)
        summary = seen[-1]
        if summary.status or summary.status is None or within.passed:
            return seen
        time.sleep(min(pause, within.left))  # nothing tells us when a guest's inner state changes
        pause = min(pause * 1.5, 1.0)


def _unknown(ready: Spec, power: Power) -> tuple[Condition, ...]:
    types = [_TRIALS[key][0] for key in _TRIALS if ready.get(key) not in (None, False)]
    return tuple(Condition(type, None, "NotRunning", f"it is {power.value}") for type in [*types, READY])


def _summary(tried: tuple[Condition, ...]) -> Condition:
    waiting = [condition for condition in tried if not condition.status]
    if not waiting:
        return Condition(READY, True, "AllHold" if tried else "Running")
    said = "; ".join(f"{one.type}: {one.message or one.reason}" for one in waiting)
    return Condition(READY, False, "Waiting", said)


def _try(look: Look, key: str, wanted: Any) -> Condition:
    type, trial = _TRIALS[key]
    try:
        return trial(look, wanted, type)
    except (Refused, Interrupted) as error:
        return Condition(type, False, "CannotTell", error.problem.summary)


def _ip(look: Look, _wanted: Any, type: str) -> Condition:
    if addresses := look.addresses:
        return Condition(type, True, "HasAddress", ", ".join(addresses))
    return Condition(type, False, "NoAddress", "it has no address yet")


def _tcp(look: Look, port: Any, type: str) -> Condition:
    """From outside where there is a way, else by what listens inside."""
    if look.client.address.socket is not None:
        for address in look.addresses:
            with contextlib.suppress(OSError), socket.create_connection((address, int(port)), _CONNECT):
                return Condition(type, True, "Answers", f"{address} port {port}")
    if int(port) in _listening(look):
        return Condition(type, True, "Listens", f"port {port}, seen from inside")
    return Condition(type, False, "NothingListens", f"nothing answers on port {port}")


def _listening(look: Look) -> set[int]:
    """The TCP ports that somebody listens on, from the guest's own /proc."""
    words = ["cat", "/proc/net/tcp", "/proc/net/tcp6"]
    _, table = session.capture(look.client, look.name, words, look.within)
    return {port for _, _, port in parse(table.decode("ascii", "replace"), "tcp")}


def _log(look: Look, pattern: Any, type: str) -> Condition:
    text = look.console.read(look.within, running=True).decode("utf-8", "replace").replace("\r", "")
    if re.search(str(pattern), text, re.MULTILINE):
        return Condition(type, True, "Found", f"the console log has {pattern!r}")
    return Condition(type, False, "NotFound", f"the console log does not have {pattern!r} yet")


def _command(look: Look, words: Any, type: str) -> Condition:
    code, _ = session.capture(look.client, look.name, [str(word) for word in words], look.within)
    if code == 0:
        return Condition(type, True, "Succeeded", str(words[0]))
    return Condition(type, False, "Failed", f"{words[0]} ended with exit code {code}")


def _cloud_init(look: Look, _wanted: Any, type: str) -> Condition:
    """cloud-init leaves its result where it ends; /run is new at every boot."""
    try:
        result = look.client.raw("instances", look.name, "files", within=look.within, most=1 << 20, path=_CLOUD_RESULT)
    except Missing:
        return Condition(type, False, "Running", "cloud-init has not finished")
    if b'"errors": []' in result or b'"errors":[]' in result:
        return Condition(type, True, "Done")
    return Condition(type, False, "Errors", "cloud-init finished with errors: see cloud-init status --long")


def _agent(_look: Look, _wanted: Any, type: str) -> Condition:
    return Condition(type, True, "NotNeeded", "LXD reaches into a container without an agent")


_TRIALS: Mapping[str, tuple[str, Callable[[Look, Any, str], Condition]]] = {
    "guestAgent": ("GuestAgent", _agent),
    "ip": ("Ip", _ip),
    "tcp": ("Tcp", _tcp),
    "log": ("Log", _log),
    "command": ("Command", _command),
    "cloudInit": ("CloudInit", _cloud_init),
}
