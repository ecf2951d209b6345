"""RESOLVE: VirtualMachine and Container → their resolved specs, with what is attached to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from reconciler.desired import MOST_PLUGGED, Desired, ResourceId
from reconciler.manifest import Document
from reconciler.resolution.images import image_reference
from reconciler.resolution.infrastructure import device_references, raw_config, raw_devices
from reconciler.resolution.scope import Scope, document_id
from reconciler.resolution.through import defaults

_READY_TIMEOUT = 120
_RUN_TIMEOUT = 60
_AT_BOOT = ("boot", "always")


def container(scope: Scope, document: Document) -> Desired:
    """A Container, with what is attached to it among its devices."""
    spec = scope.spec(document)
    spec.pop("host", None)
    id, host = document_id(document), scope.host_of(document)
    payload = _common(scope, document, spec)
    needs: set[ResourceId] = set()
    if "image" in spec:
        spec["image"], image = image_reference(scope, document, ("spec", "image"), spec["image"])
        needs |= {image} if image else set()
    attached = scope.attached.get(id, {}).get("devices", {})
    usual = _autostart(spec) | defaults(scope.machine_of(document), attached, spec.get("user") or {})
    config = {**usual, **raw_config(spec.get("config") or {})}
    if config or "config" in spec:
        spec["config"] = config
    if attached or "devices" in spec:
        spec["devices"] = {**raw_devices(spec.get("devices") or {}), **attached}
    needs |= {ResourceId("Volume", one["source"]) for name, one in attached.items() if name.startswith("volume-")}
    referred = {ResourceId("Profile", name) for name in spec.get("profiles") or ()}
    referred |= device_references(spec.get("devices") or {})
    declared = {one for one in referred if scope.declared_on(host, one)}
    return scope.desired(document, spec, needs | declared, referred - declared, payload)


def _autostart(spec: Mapping[str, Any]) -> dict[str, str]:
    """What a declared lifetime comes to for LXD; without one, what a container has since its creation stays."""
    return {"boot.autostart": "true" if spec["lifetime"] in _AT_BOOT else "false"} if "lifetime" in spec else {}


def virtual_machine(scope: Scope, document: Document) -> Desired:
    """A VirtualMachine, with what is attached to it: Disks behind its own."""
    spec = scope.spec(document)
    id = document_id(document)
    payload = _common(scope, document, spec)
    needs: set[ResourceId] = set()
    if "boot" in spec:
        spec["boot"] = _boot(scope, document, spec["boot"], needs)
    disks = {one["name"]: _disk(scope, document, index, one, needs) for index, one in enumerate(spec.pop("disks", ()))}
    parts = dict(scope.attached.get(id, {}))
    attached = parts.pop("disks", {})
    if both := sorted(set(disks) & set(attached)):
        scope.problem(document, ("spec", "disks"), f'disks: "{both[0]}" is also the name of a Disk attached to it')
    needs |= {ResourceId("Disk", name) for name in attached}
    if disks or attached:
        spec["disks"] = {**disks, **attached}
        if len(spec["disks"]) > 1:  # mappings have no order that two sides could compare
            spec["bootOrder"] = list(spec["disks"])
    if "nics" in spec:
        spec["nics"] = {nic["name"]: _nic(nic) for nic in spec["nics"]}
        bridges = {ResourceId("Network", nic["bridge"]) for nic in spec["nics"].values() if "bridge" in nic}
        needs |= {bridge for bridge in bridges if bridge in scope.documents}
    spec |= parts
    if spec.get("lifetime") == "always":
        spec["restart"] = "always"
    _refuse_crowd(scope, document, spec)
    return scope.desired(document, spec, needs, (), payload)


def _refuse_crowd(scope: Scope, document: Document, spec: Mapping[str, Any]) -> None:
    """Each thing that is plugged in takes a port, and so do the agent's channel and what memory grows by."""
    plugged = sum(len(spec.get(part, ())) for part in ("disks", "nics", "shares", "devices")) + 2
    if plugged > MOST_PLUGGED:
        most = MOST_PLUGGED - 2
        summary = f"a machine takes at most {most} disks, network cards, shares and devices, not {plugged - 2}"
        scope.problem(document, ("metadata", "name"), summary, "share one folder that holds the others")


def _common(scope: Scope, document: Document, spec: dict[str, Any]) -> dict[str, bytes]:
    """Bring what both kinds of guest share into form, in place; the contents of its files come back."""
    if "cpus" in spec:
        spec["cpus"] = dict(spec["cpus"]) if isinstance(spec["cpus"], Mapping) else {"count": spec["cpus"]}
    if "memory" in spec:
        spec["memory"] = _memory(scope, document, spec["memory"])
    if "ready" in spec:
        ready = dict(spec["ready"])
        ready["timeout"] = scope.duration(document, ("spec", "ready", "timeout"), ready.get("timeout", _READY_TIMEOUT))
        spec["ready"] = ready
    if "cloudInit" in spec:
        spec["cloudInit"] = {key: _cloud_text(key, value) for key, value in spec["cloudInit"].items()}
    if "run" in spec:
        spec["run"] = [_run(scope, document, index, one) for index, one in enumerate(spec["run"])]
    payload: dict[str, bytes] = {}
    if "files" in spec:
        spec["files"] = {
            one["path"]: _file(scope, document, index, one, payload) for index, one in enumerate(spec["files"])
        }
    return payload


def _memory(scope: Scope, document: Document, given: Any) -> dict[str, int]:
    if not isinstance(given, Mapping):
        return {"size": scope.size(document, ("spec", "memory"), given)}
    return {key: scope.size(document, ("spec", "memory", key), value) for key, value in given.items()}


def _cloud_text(key: str, value: Any) -> str:
    """Mappings may be written as such: JSON is YAML, and user data gets its header."""
    if isinstance(value, str):
        return value
    written = json.dumps(value, indent=1) + "\n"
    return f"#cloud-config\n{written}" if key == "userData" else written


def _run(scope: Scope, document: Document, index: int, given: Mapping[str, Any]) -> dict[str, Any]:
    timeout = scope.duration(document, ("spec", "run", index, "timeout"), given.get("timeout", _RUN_TIMEOUT))
    return {"command": list(given["command"]), "when": given.get("when", "create"), "timeout": timeout}


def _file(
    scope: Scope, document: Document, index: int, given: Mapping[str, Any], payload: dict[str, bytes]
) -> dict[str, Any]:
    place = ("spec", "files", index, "content")
    usual = "0600" if place in document.secrets else "0644"
    rights = {"mode": str(given.get("mode", usual)), "owner": str(given.get("owner", "0:0"))}
    if place in document.secrets:
        digest, contents = scope.secret(document, place)
        payload[digest] = contents
        return {"sha256": digest, **rights, "secret": True}
    if "content" in given:
        contents = given["content"].encode()
    else:
        contents = scope.read(document, ("spec", "files", index, "source"), given["source"])
    sha256 = hashlib.sha256(contents).hexdigest()
    payload[sha256] = contents
    return {"sha256": sha256, **rights}


def _boot(scope: Scope, document: Document, given: Mapping[str, Any], needs: set[ResourceId]) -> dict[str, Any]:
    boot = dict(given)
    if "image" in given:
        boot["image"], image = image_reference(scope, document, ("spec", "boot", "image"), given["image"])
        needs |= {image} if image else set()
    for key in ("kernel", "initrd"):
        if key in given:
            boot[key] = scope.path(document, given[key])
    return boot


def _disk(
    scope: Scope, document: Document, index: int, given: Mapping[str, Any], needs: set[ResourceId]
) -> dict[str, Any]:
    disk = {key: value for key, value in given.items() if key != "name"}
    path = ("spec", "disks", index)
    if "image" in given:
        disk["image"], image = image_reference(scope, document, (*path, "image"), given["image"])
        needs |= {image} if image else set()
    if "size" in given:
        disk["size"] = scope.size(document, (*path, "size"), given["size"])
    if "path" in given:
        disk["path"] = scope.path(document, given["path"])
    disk.setdefault("readOnly", False)
    return disk


def _nic(given: Mapping[str, Any]) -> dict[str, Any]:
    nic = {key: value for key, value in given.items() if key != "name"}
    nic.setdefault("type", "user")
    nic.setdefault("model", "virtio-net-pci")
    if "mac" in nic:
        nic["mac"] = nic["mac"].lower()
    return nic
