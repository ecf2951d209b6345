"""RESOLVE: Share, Device and PortForward, and what each adds to its guests: they have no object of their own.

A VirtualMachine gets it in ``shares``, ``devices`` and ``forwards``, a Container among its LXD devices (``share-NAME``,
``device-NAME``, ``port-NAME``). What is aimed at a container inside of a VM is added nowhere: the plan holds it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler import attachments
from reconciler.manifest import Document
from reconciler.model import GUESTS, LOCAL_HOST, QEMU, Desired, ResourceId, lxd_backend
from reconciler.resolution.scope import Scope, document_id, hosts_lxd

_BLOCK = ("disk/", "dm-", "loop", "mapper/", "mmcblk", "nbd", "nvme", "sd", "sr", "vd", "xvd")
"""How block devices are called below /dev, for those that are not there right now."""
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
    """A PortForward by itself."""
    spec = scope.spec(document)
    return _carried(scope, document, spec, [spec["target"]])


def _carried(scope: Scope, document: Document, spec: Mapping[str, Any], targets: Sequence[str]) -> Desired:
    guests = sorted({ResourceId.parse(target) for target in targets} & scope.documents.keys())
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
        claim_path(scope, document, (*place, "path"), guest, mount["path"])
        if guest.kind == "VirtualMachine":
            entry: dict[str, Any] = {"source": source, "readOnly": read_only, "path": mount["path"]}
        else:
            on = "true" if read_only else "false"
            entry = {"type": "disk", "source": source, "path": mount["path"], "readonly": on}
        scope.attach(guest, *attachments.place(guest.kind, id), entry)


def attach_device(scope: Scope, document: Document) -> None:
    """Add it to its guest."""
    id, spec = document_id(document), scope.spec(document)
    guest = _guest(scope, document, ("spec", "attachTo"), spec["attachTo"])
    if guest is None:
        return
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
    match = spec.get("match", {})
    if "usb" in match and "vendor" in match["usb"]:
        usb = match["usb"]
        serial = {"serial": usb["serial"]} if "serial" in usb else {}
        return {"type": "usb", "vendorid": usb["vendor"], "productid": usb["product"], **serial}
    if "gpu" in match:
        return {"type": "gpu", "pci": match["gpu"]}
    if "unix" in match:
        claim_path(scope, document, ("spec", "match", "unix"), guest, match["unix"])
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
    if guest.kind == "VirtualMachine":
        if not (scope.documents[guest].data.get("spec") or {}).get("nics"):
            scope.problem(document, ("spec", "target"), f"target: {guest} has no network card", "give it one: nics")
        entry = {"listen": listen, "port": port, "protocol": protocol}
    else:
        ends = {"listen": f"{protocol}:{listen}", "connect": f"{protocol}:127.0.0.1:{port}"}
        entry = {"type": "proxy", **ends, "bind": "host"}
    scope.attach(guest, *attachments.place(guest.kind, id), entry)


ATTACH: Mapping[str, Callable[[Scope, Document], None]] = {
    "Share": attach_share,
    "Device": attach_device,
    "PortForward": attach_port,
}


def _guest(scope: Scope, document: Document, place: Place, target: str) -> ResourceId | None:
    """The guest that it can be added to; None, with a problem where there is one to tell."""
    guest = scope.reference(document, place, target, sorted(GUESTS))
    if guest is None or guest.kind == "VirtualMachine":
        return guest
    host = scope.host_of(scope.documents[guest])
    machine, declared = (scope.documents.get(ResourceId(kind, host)) for kind in ("VirtualMachine", "Host"))
    lxd = declared.data["spec"]["lxd"] if declared is not None else {}
    if "virtualMachine" in lxd or (host != LOCAL_HOST and machine is not None and hosts_lxd(machine)):
        return None  # inside of a VM: planning holds it, and says so
    if "url" in lxd:
        summary = f"target: {guest} lives on Host/{host}, which is another machine"
        scope.problem(document, place, summary, f"a {document_id(document).kind} is this machine's")
        return None
    return guest


def claim_path(scope: Scope, document: Document, place: Place, guest: ResourceId, path: str) -> None:
    """Note what stands at a path of the guest; a problem when something stands there already."""
    taken = scope.mounted.setdefault(guest, {})
    if not taken and guest.kind == "Container":
        raw = (scope.documents[guest].data.get("spec") or {}).get("devices") or {}
        paths = {name: one.get("path") or one.get("source") for name, one in raw.items()}
        taken.update({_plain(one): f'its device "{name}"' for name, one in paths.items() if isinstance(one, str)})
    mine = str(document_id(document))
    other = taken.setdefault(_plain(path), mine)
    if other is not mine:
        summary = f"{guest} has {other} at {path}"
        scope.problem(document, place, f"{place[-1]}: {summary}", "give each a path of its own")


def _plain(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))
