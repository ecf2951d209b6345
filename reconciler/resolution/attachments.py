"""RESOLVE: Share, Device and PortForward, and what each adds to its guests: they have no object of their own.

A VirtualMachine gets it in ``shares``, ``devices`` and ``forwards``, a Container among its LXD devices (``share-NAME``,
``device-NAME``, ``port-NAME``). What is aimed at a container inside of a VM is added to both: see ``through``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler import attachments
from reconciler.desired import AUTO, GUESTS, QEMU, Desired, ResourceId, lxd_backend
from reconciler.manifest import Document
from reconciler.resolution import through
from reconciler.resolution.scope import Scope, document_id

_BLOCK = ("disk/", "dm-", "loop", "mapper/", "mmcblk", "nbd", "nvme", "sd", "sr", "vd", "xvd")
"""How block devices are called below /dev, for those that are not there right now."""
_RULES: Mapping[str, Sequence[int | str]] = {"allow": ("1024-65535",), "deny": ()}
"""What ``port: auto`` forwards unless it says otherwise: no port that only root may listen on."""
Place = Sequence[str | int]


def share(scope: Scope, document: Document) -> Desired:
    """A Share by itself."""
    spec = scope.spec(document)
    spec["source"] = scope.path(document, spec["source"])
    return _carried(scope, document, spec, [one["target"] for one in spec["mounts"]])


def device(scope: Scope, document: Document) -> Desired:
    """A Device by itself."""
    spec = scope.spec(document)
    return _carried(scope, document, spec, [spec["attachTo"]])


def port_forward(scope: Scope, document: Document) -> Desired:
    """A PortForward by itself; one that follows what listens is filled in by planning."""
    spec = scope.spec(document)
    if spec["port"] == AUTO:
        spec |= {rule: _ranges(spec.get(rule, default)) for rule, default in _RULES.items()}
    return _carried(scope, document, spec, [spec["target"]])


def _ranges(given: Sequence[int | str]) -> list[tuple[int, int]]:
    """``8080`` and ``"1024-2047"``: first and last port."""
    pairs = (str(one).partition("-") for one in given)
    return [(int(first), int(last or first)) for first, _, last in pairs]


def _carried(scope: Scope, document: Document, spec: Mapping[str, Any], targets: Sequence[str]) -> Desired:
    aimed_at = {id for id in map(ResourceId.parse, targets) if id in scope.documents}
    led_through = {scope.machine_of(scope.documents[id]) for id in aimed_at if id.kind == "Container"}
    guests = sorted(aimed_at | {machine for machine in led_through if machine is not None})
    want = scope.desired(document, spec, guests)
    return replace(want, backend=_backend(scope, guests[0])) if guests else want


def _backend(scope: Scope, guest: ResourceId) -> str:
    return QEMU if guest.kind == "VirtualMachine" else lxd_backend(scope.host_of(scope.documents[guest]))


def attach_share(scope: Scope, document: Document) -> None:
    """Add it to every guest that mounts it."""
    id, spec = document_id(document), scope.spec(document)
    source, read_only = scope.path(document, spec["source"]), bool(spec["readOnly"])
    for index, mount in enumerate(spec["mounts"]):
        place = ("spec", "mounts", index)
        guest = _guest(scope, document, (*place, "target"), mount["target"])
        if guest is None:
            continue
        scope.claim_path(document, (*place, "path"), guest, mount["path"])
        entry: dict[str, Any] = {"source": source, "readOnly": read_only}
        if guest.kind == "VirtualMachine":
            entry["path"] = mount["path"]
        else:
            inside = scope.machine_of(scope.documents[guest]) is not None
            origin = through.share(scope, document, guest, (*place, "path"), entry) if inside else source
            on = "true" if read_only else "false"
            entry = {"type": "disk", "source": origin, "path": mount["path"], "readonly": on}
        scope.attach(guest, *attachments.place(guest.kind, id), entry)


def attach_device(scope: Scope, document: Document) -> None:
    """Add it to its guest."""
    id, spec = document_id(document), scope.spec(document)
    guest = _guest(scope, document, ("spec", "attachTo"), spec["attachTo"])
    if guest is None:
        return
    through.note_alike(scope, document, guest, spec)
    if guest.kind == "VirtualMachine":
        if "mode" in spec:
            scope.problem(document, ("spec", "mode"), f"mode: {guest} makes its own device nodes", "take it out")
        entry = dict(spec["match"]) if "match" in spec else {"emulate": dict(spec["emulate"])}
        scope.attach(guest, *attachments.place(guest.kind, id), entry)
    elif (added := _lxd_device(scope, document, guest, spec)) is not None:
        mode = {"mode": spec["mode"]} if "mode" in spec else {}
        scope.attach(guest, *attachments.place(guest.kind, id), {**added, **mode})


def _lxd_device(scope: Scope, document: Document, guest: ResourceId, spec: Mapping[str, Any]) -> dict[str, str] | None:
    """The device as LXD calls it; None with a problem where a container cannot have it."""
    if scope.machine_of(scope.documents[guest]) is not None:
        return through.device(scope, document, guest, spec)
    match = spec.get("match", {})
    if "usb" in match and "vendor" in match["usb"]:
        usb = match["usb"]
        serial = {"serial": usb["serial"]} if "serial" in usb else {}
        return {"type": "usb", "vendorid": usb["vendor"], "productid": usb["product"], **serial}
    if "gpu" in match:
        return {"type": "gpu", "pci": match["gpu"]}
    if "unix" in match:
        scope.claim_path(document, ("spec", "match", "unix"), guest, match["unix"])
        kind = scope.surroundings.node(match["unix"]) or _kind_by_name(match["unix"])
        # Not required, so that it may be pulled out and put back while the container runs.
        return {"type": f"unix-{kind}", "source": match["unix"], "path": match["unix"], "required": "false"}
    if "usb" in match:
        _refuse(scope, document, ("spec", "match", "usb"), "usb: a container takes USB devices by vendor and product")
    elif "pci" in match:
        _refuse(scope, document, ("spec", "match", "pci"), "pci: a container has no PCI bus, only gpu, usb, unix")
    else:
        _refuse(scope, document, ("spec", "emulate"), "emulate: a container has no bus to emulate on")
    return None


def _refuse(scope: Scope, document: Document, place: Place, summary: str) -> None:
    scope.problem(document, place, summary, "attach it to a VirtualMachine")


def _kind_by_name(path: str) -> str:
    return "block" if path.removeprefix("/dev/").startswith(_BLOCK) else "char"


def attach_port(scope: Scope, document: Document) -> None:
    """Add it to the guest that it leads into."""
    id, spec = document_id(document), scope.spec(document)
    guest = _guest(scope, document, ("spec", "target"), spec["target"])
    if guest is None:
        return
    listen, port, protocol = spec["listen"], spec["port"], spec["protocol"]
    if port == AUTO:
        machine = guest if guest.kind == "VirtualMachine" else scope.machine_of(scope.documents[guest])
        if machine is not None:
            through.refuse_cardless(scope, document, machine)
        return
    if guest.kind == "VirtualMachine":
        through.refuse_cardless(scope, document, guest)
        through.claim_port(scope, document, guest, protocol, port)
        entry = attachments.machine_port(listen, port, protocol)
    else:
        if scope.machine_of(scope.documents[guest]) is not None:
            listen = f"0.0.0.0:{through.port(scope, document, guest, spec)}"
        entry = attachments.container_port(listen, port, protocol)
    scope.attach(guest, *attachments.place(guest.kind, id), entry)


ATTACH: Mapping[str, Callable[[Scope, Document], None]] = {
    "Share": attach_share,
    "Device": attach_device,
    "PortForward": attach_port,
}


def _guest(scope: Scope, document: Document, place: Place, target: str) -> ResourceId | None:
    """The guest that it can be added to; None with a problem."""
    guest = scope.reference(document, place, target, sorted(GUESTS))
    if guest is None or guest.kind == "VirtualMachine":
        return guest
    host = scope.host_of(scope.documents[guest])
    declared = scope.documents.get(ResourceId("Host", host))
    if declared is not None and "url" in declared.data["spec"]["lxd"]:
        summary = f"target: {guest} lives on Host/{host}, which is another machine"
        scope.problem(document, place, summary, f"a {document_id(document).kind} is this machine's")
        return None
    return guest
