"""PLAN: ``port: auto``: what listens in a guest right now is forwarded from this machine, port by port.

Each port stands in the guests' specs as a PortForward of its own would, called ``NAME-PORT``. A guest that does not
say what listens in it keeps what it has: silence is not absence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler import attachments
from reconciler.model import AUTO, Desired, Power, ResourceId, Spec, Step, Verb, World
from reconciler.planning.asked import hold
from reconciler.planning.attaching import of_others, overlap, socket
from reconciler.planning.towers import machines_of
from reconciler.sockets import Socket

Entries = dict[ResourceId, dict[str, Any]]
"""Guest → name in the part of its spec where forwarded ports stand → entry."""
_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, never bound
_LXD_INSIDE = 8443


@dataclass(frozen=True, slots=True)
class Hops:
    """The guests that a PortForward goes through. machine: of a container inside of a VM, that VM."""

    target: Desired
    machine: Desired | None


def is_followed(want: Desired) -> bool:
    """Whether its ports are found rather than stated."""
    return want.id.kind == "PortForward" and want.spec.get("port") == AUTO


def guests_followed(desired: Collection[Desired]) -> dict[str, set[ResourceId]]:
    """Backend → guests of which somebody has to find out what listens in them."""
    homes = {want.id: want.backend for want in desired}
    found: dict[str, set[ResourceId]] = {}
    for want in desired:
        target = _target(want) if is_followed(want) else None
        if target in homes:
            found.setdefault(homes[target], set()).add(target)
    return found


def with_followed(desired: Mapping[ResourceId, Desired], world: World) -> dict[ResourceId, Desired]:
    """The same, the guests with what is forwarded into them."""
    followed = [want for want in desired.values() if is_followed(want) and _target(want) in desired]
    result = dict(desired)
    for want in followed:
        hops = _hops(want, result)
        for guest, entries in _entries(want, hops, world).items():
            part = "forwards" if guest.kind == "VirtualMachine" else "devices"
            spec = result[guest].spec
            if entries:
                result[guest] = replace(result[guest], spec={**spec, part: {**(spec.get(part) or {}), **entries}})
    return result


def told(want: Desired, desired: Mapping[ResourceId, Desired], steps: Mapping[ResourceId, Step], world: World) -> Step:
    """Its own step: which ports, or why that is not known. desired: the guests as they will be."""
    if (target := _target(want)) not in desired:
        return Step(want.id, want.backend, Verb.NOOP, "no guest has it")
    hops = _hops(want, desired)
    step = steps[target]
    if step.verb is Verb.HOLD:
        return replace(hold(want, f"{target} is held"), awaits=step.awaits)
    if hops.target.spec.get("power", Power.RUNNING) != Power.RUNNING:
        return Step(want.id, want.backend, Verb.NOOP, f"{target} does not run, as declared")
    if target not in world.heard:
        if step.verb is Verb.NOOP:
            return hold(want, f"{target} does not say what listens in it")
        return replace(hold(want, f"known once {target} runs: apply goes on then"), awaits=target)
    taken = ", ".join(f"{port}" for port in sorted(_refused(want, hops, world)))
    notes = (f"taken by another program: {taken}",) if taken else ()
    ports = ", ".join(map(str, _ports(want, hops, world))) or "nothing that it allows listens"
    return Step(want.id, want.backend, Verb.NOOP, f"{target}: {ports}", notes=notes)


def _entries(want: Desired, hops: Hops, world: World) -> Entries:
    if hops.target.id not in world.heard:
        return _kept(want, hops, world)
    address, protocol = str(want.spec["listen"]), str(want.spec["protocol"])
    entries: Entries = {}
    for port in _ports(want, hops, world):
        name, listen = f"{want.id.name}-{port}", f"{address}:{port}"
        if hops.machine is not None:
            used = {one["port"] for one in entries.get(hops.machine.id, {}).values()} | _used(hops.machine.spec)
            inside = _passage(name, used)
            entry = attachments.machine_port(listen, inside, protocol)
            entries.setdefault(hops.machine.id, {})[name] = entry
            listen = f"0.0.0.0:{inside}"
        if hops.target.id.kind == "VirtualMachine":
            entries.setdefault(hops.target.id, {})[name] = attachments.machine_port(listen, port, protocol)
        else:
            device = attachments.container_port(listen, port, protocol)
            entries.setdefault(hops.target.id, {})[f"port-{name}"] = device
    return entries


def _passage(name: str, used: Collection[int]) -> int:
    """The VM's port that leads on, by the name alone unless that is taken."""
    port = attachments.passage(name)
    while port in used:
        port += 1
    return port


def _kept(want: Desired, hops: Hops, world: World) -> Entries:
    """What the guests have of it."""
    entries: Entries = {}
    for guest in (hops.target, hops.machine):
        seen = world.find(guest.backend, guest.id) if guest is not None else None
        if guest is None or seen is None:
            continue
        for id, entry in attachments.carried(guest.id.kind, seen.spec):
            if belongs(id, want.id):
                entries.setdefault(guest.id, {})[attachments.place(guest.id.kind, id)[1]] = entry
    return entries


def belongs(id: ResourceId, followed: ResourceId) -> bool:
    """Whether it is a port that the other one, a PortForward with ``port: auto``, has found."""
    pattern = re.compile(re.escape(followed.name) + r"-\d{1,5}")
    return id.kind == followed.kind == "PortForward" and pattern.fullmatch(id.name) is not None


def _ports(want: Desired, hops: Hops, world: World) -> list[int]:
    return sorted(_found(want, hops, world) - _refused(want, hops, world))


def _found(want: Desired, hops: Hops, world: World) -> set[int]:
    """What listens, can be reached, and is allowed."""
    heard = world.heard.get(hops.target.id, frozenset())
    own = _used(hops.target.spec) if hops.target.id.kind == "VirtualMachine" else set()
    return {
        port
        for protocol, address, port in heard
        if protocol == want.spec["protocol"] and _is_reached(hops.target, address)
        if _is_in(port, want.spec["allow"]) and not _is_in(port, want.spec["deny"]) and port not in own
    }


def _refused(want: Desired, hops: Hops, world: World) -> set[int]:
    """Those of them that another program of this machine listens on itself."""
    foreign = of_others(world)
    return {port for port in _found(want, hops, world) if _is_taken(want, port, foreign)}


def _is_taken(want: Desired, port: int, foreign: Collection[Socket]) -> bool:
    wanted = socket(str(want.spec["protocol"]), f"{want.spec['listen']}:{port}")
    return wanted is not None and any(overlap(wanted, one) for one in foreign)


def _is_reached(target: Desired, address: str) -> bool:
    """A container is talked to on its own loopback, a VM on the address of its card."""
    if address in _ANYWHERE:
        return True
    loopback = address.startswith("127.")
    return address == "127.0.0.1" if target.id.kind == "Container" else ":" not in address and not loopback


def _used(machine: Spec) -> set[int]:
    """Ports of a VM that lead on into its containers, or are our own way into it."""
    lxd = {_LXD_INSIDE} if machine.get("lxd") else set()
    return lxd | {int(one["port"]) for one in (machine.get("forwards") or {}).values()}


def _is_in(port: int, ranges: Collection[tuple[int, int]]) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _target(want: Desired) -> ResourceId:
    return ResourceId.parse(str(want.spec["target"]))


def _hops(want: Desired, desired: Mapping[ResourceId, Desired]) -> Hops:
    target = desired[_target(want)]
    machine = machines_of(desired).get(target.backend) if target.id.kind == "Container" else None
    return Hops(target, desired.get(machine) if machine is not None else None)


def split(names: Mapping[ResourceId, str | None], there: Iterator[ResourceId]) -> dict[ResourceId, str | None]:
    """What somebody wants gone: instead of one with ``port: auto`` the ports that it has found."""
    found = set(there)
    result: dict[ResourceId, str | None] = {}
    for id, home in names.items():
        ports = {one for one in found if belongs(one, id)} if id not in found else set()
        result |= dict.fromkeys(sorted(ports), home) if ports else {id: home}
    return result
