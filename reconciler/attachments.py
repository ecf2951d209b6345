"""Beside the flow: Share, Device and PortForward have no object of their own. Where each stands in its guests' specs,
and what a guest's spec says of them, so that they can be shown, planned and taken away. Pure.

What is aimed at a container inside of a VM stands in both: the VM has it from this machine, the container from the VM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.desired import ResourceId, Spec

if TYPE_CHECKING:
    from reconciler.model import Condition, Observed

_IN_MACHINES = {"Share": "shares", "Device": "devices", "PortForward": "forwards"}
_IN_CONTAINERS = {"Share": "share-", "Device": "device-", "PortForward": "port-"}

SHARES_INSIDE, DISKS_INSIDE = "/mnt/shares", "/mnt/disks"
"""Where a VM has what it only passes on to its containers; what is mounted there is a guest's own affair nowhere."""
DISK = "disk-"
"""What the device of a Disk is called, before its name, in a container inside of the VM that has the Disk."""
_ORIGINS = {**{prefix: _IN_MACHINES[kind] for kind, prefix in _IN_CONTAINERS.items()}, DISK: "disks"}

_FIRST_PORT, _PORTS = 10_000, 22_000
"""Ports inside of a VM that lead on into containers: below those that its kernel hands out by itself."""

Place = tuple[str, str]
"""Part of a guest's spec, and the name there: ``("shares", "site")``, ``("devices", "share-site")``."""


def place(guest_kind: str, id: ResourceId) -> Place:
    """Where it stands in the spec of a guest of that kind."""
    if guest_kind == "VirtualMachine":
        return (_IN_MACHINES[id.kind], id.name)
    return ("devices", f"{_IN_CONTAINERS[id.kind]}{id.name}")


def entry(guest_kind: str, spec: Spec, id: ResourceId) -> Any:
    """What the guest's spec says of it; None when it says nothing."""
    part, name = place(guest_kind, id)
    found = spec.get(part)
    return found.get(name) if isinstance(found, Mapping) else None


def without(guest_kind: str, spec: Spec, id: ResourceId) -> dict[str, Any]:
    """The guest's spec without it."""
    part, name = place(guest_kind, id)
    kept = {key: one for key, one in (spec.get(part) or {}).items() if key != name}
    return {key: value for key, value in {**spec, part: kept}.items() if key != part or kept}


def carried(guest_kind: str, spec: Spec) -> Iterator[tuple[ResourceId, Any]]:
    """Every attachment that a guest's spec holds, with its entry there."""
    if guest_kind == "VirtualMachine":
        for kind, part in _IN_MACHINES.items():
            for name, one in (spec.get(part) or {}).items():
                yield ResourceId(kind, name), one
    elif guest_kind == "Container":
        for name, one in (spec.get("devices") or {}).items():
            for kind, prefix in _IN_CONTAINERS.items():
                if name.startswith(prefix):
                    yield ResourceId(kind, name.removeprefix(prefix)), one


def inside(kind: str, name: str) -> str:
    """The path at which a VM has a Share or a Disk for its containers alone."""
    return f"{SHARES_INSIDE if kind == 'Share' else DISKS_INSIDE}/{name}"


def machine_port(listen: str, port: int, protocol: str) -> dict[str, Any]:
    """A forwarded port as a VM's spec has it."""
    return {"listen": listen, "port": port, "protocol": protocol}


def container_port(listen: str, port: int, protocol: str) -> dict[str, Any]:
    """The same among a container's devices: from its host's side to its own loopback."""
    ends = {"listen": f"{protocol}:{listen}", "connect": f"{protocol}:127.0.0.1:{port}"}
    return {"type": "proxy", **ends, "bind": "host"}


def passage(name: str) -> int:
    """The port inside of a VM at which the way of that PortForward leads on into a container: by the name alone."""
    digest = hashlib.sha256(name.encode()).digest()
    return _FIRST_PORT + int.from_bytes(digest[:4], "big") % _PORTS


def origin(device: str) -> Place | None:
    """Where the VM that a container is in has what the container knows by that device; None for a device of its own."""
    for prefix, part in _ORIGINS.items():
        if device.startswith(prefix):
            return part, device.removeprefix(prefix)
    return None


def machine_of(seen: Observed) -> ResourceId | None:
    """The VM that an observed container is in; None for one on an LXD that is in none."""
    if seen.id.kind != "Container":
        return None
    return next((need for need in seen.needs if need.kind == "VirtualMachine"), None)


@dataclass(frozen=True, slots=True)
class Listener:
    """A port of this machine that leads into a guest. protocol: ``tcp`` or ``udp``; listen: ``127.0.0.1:8080``."""

    protocol: str
    listen: str


def listener(guest_kind: str, one: Spec) -> Listener:
    """Where a forwarded port listens, as its guest's spec has it."""
    if guest_kind == "VirtualMachine":
        return Listener(one.get("protocol", "tcp"), one["listen"])
    protocol, _, listen = str(one.get("listen", "")).partition(":")
    return Listener(protocol, listen)


def observed(world: Iterable[Observed]) -> list[Observed]:
    """All attachments as the guests have them, as if they were objects: one for each name and environment.

    A Share of several guests lists all of its mounts. What somebody else put into a guest is not ours, as the guest is.
    """
    carriers: dict[tuple[str | None, ResourceId], list[tuple[Observed, Any]]] = {}
    for guest in sorted(world, key=lambda one: (one.id, one.backend)):
        for id, one in carried(guest.id.kind, guest.spec):
            carriers.setdefault((guest.environment, id), []).append((guest, one))
    return [_observed(id, having) for (_environment, id), having in carriers.items()]


def _observed(id: ResourceId, having: list[tuple[Observed, Any]]) -> Observed:
    """One of them. What a VM only passes on is told of the containers that get it, in the VM's words."""
    from reconciler.model import Observed

    first = having[0][0]
    entries = {guest.id: one for guest, one in having}
    led = {guest.id: machine for guest, _ in having if (machine := machine_of(guest)) in entries}
    only_passed_on = {machine for machine in led.values() if machine and _is_hop(id, entries[machine])}
    told = [_described(id.kind, guest.id, one) for guest, one in having if guest.id not in only_passed_on]
    spec = told[0]
    machine = next((led[guest.id] for guest, _ in having if guest.id in led), None)
    if machine is not None:
        words = _described(id.kind, machine, entries[machine])
        spec = {key: value for key, value in {**spec, **words}.items() if key != "match" or key in words}
        spec |= {key: told[0][key] for key in ("attachTo", "target", "port") if key in told[0]}
    if id.kind == "Share":
        spec["mounts"] = [mount for one in told for mount in one["mounts"]]
    return Observed(
        id,
        first.backend,
        spec,
        owned=first.owned,
        environment=first.environment,
        applied=spec,
        needs=tuple(guest.id for guest, _ in having),
        conditions=tuple(said for guest, _ in having for said in _about(guest, id)),
    )


def _is_hop(id: ResourceId, one: Any) -> bool:
    """Whether a VM has it for its containers alone. A device or a port is never for both."""
    return id.kind != "Share" or one.get("path") == inside(id.kind, id.name)


def _about(guest: Observed, id: ResourceId) -> tuple[Condition, ...]:
    """What the guest has to say of it: conditions whose message names it, as in ``stick: not there``."""
    names = tuple(f"{name}:" for name in (id.name, place(guest.id.kind, id)[1], str(id)))
    return tuple(one for one in guest.conditions if any(part.startswith(names) for part in one.message.split("; ")))


def _described(kind: str, guest: ResourceId, one: Mapping[str, Any]) -> dict[str, Any]:
    """The entry in a guest's spec → in the words of the kind itself."""
    in_machine = guest.kind == "VirtualMachine"
    if kind == "Share":
        read_only = one.get("readOnly", True) if in_machine else one.get("readonly") == "true"
        mount = {"target": str(guest), "path": one.get("path", "")}
        return {"source": one.get("source", ""), "readOnly": read_only, "mounts": [mount]}
    if kind == "PortForward":
        where = listener(guest.kind, {"listen": "", **one})
        port = one.get("port") if in_machine else _port(str(one.get("connect", "")))
        return {"listen": where.listen, "protocol": where.protocol, "port": port, "target": str(guest)}
    if in_machine:
        given = dict(one) if "emulate" in one else {"match": dict(one)}
        return {**given, "attachTo": str(guest)}
    return {"match": _match(one), **({"mode": one["mode"]} if "mode" in one else {}), "attachTo": str(guest)}


def _port(connect: str) -> int | None:
    port = connect.rpartition(":")[2]
    return int(port) if port.isdecimal() else None


def _match(device: Mapping[str, Any]) -> dict[str, Any]:
    """One of LXD's devices → what a manifest matches."""
    kind = device.get("type")
    if kind == "usb":
        names = {"vendorid": "vendor", "productid": "product", "serial": "serial"}
        return {"usb": {names[key]: value for key, value in device.items() if key in names}}
    if kind in ("gpu", "pci"):
        return {str(kind): device.get("pci") or device.get("address") or ""}
    return {"unix": device.get("source") or device.get("path") or ""}
