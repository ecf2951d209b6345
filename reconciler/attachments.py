"""Beside the flow: Share, Device and PortForward have no object of their own. Where each stands in its guests' specs,
and what a guest's spec says of them, so that they can be shown, planned and taken away. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.model import Condition, Observed, ResourceId, Spec

_IN_MACHINES = {"Share": "shares", "Device": "devices", "PortForward": "forwards"}
_IN_CONTAINERS = {"Share": "share-", "Device": "device-", "PortForward": "port-"}

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
    found: dict[tuple[str | None, ResourceId], Observed] = {}
    for guest in sorted(world, key=lambda one: (one.id, one.backend)):
        for id, one in carried(guest.id.kind, guest.spec):
            key = (guest.environment, id)
            spec = _described(id.kind, guest.id, one)
            earlier = found.get(key)
            needs: tuple[ResourceId, ...] = (guest.id,)
            if earlier is not None:
                needs = (*earlier.needs, guest.id)
                if "mounts" in spec:
                    spec["mounts"] = [*earlier.spec["mounts"], *spec["mounts"]]
            first = earlier or guest
            found[key] = Observed(
                id,
                first.backend,
                spec,
                owned=guest.owned,
                environment=guest.environment,
                applied=spec,
                needs=needs,
                conditions=(*(earlier.conditions if earlier is not None else ()), *_about(guest, id)),
            )
    return list(found.values())


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
