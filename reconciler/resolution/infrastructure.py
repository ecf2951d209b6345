"""RESOLVE: Host, Network and LXD's own kinds, and the raw LXD maps that several kinds hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.desired import Desired, ResourceId, lxd_backend
from reconciler.manifest import Document
from reconciler.resolution.scope import Scope, document_id, text

_CERTIFICATES = ("serverCertificate", "clientCertificate", "clientKey")


def host(scope: Scope, document: Document) -> Desired:
    """A Host: its own backend reports it when it answers."""
    from dataclasses import replace

    spec = scope.spec(document)
    lxd = dict(spec["lxd"])
    for key in _CERTIFICATES:
        if key in lxd:
            lxd[key] = scope.path(document, lxd[key])
    needs: tuple[ResourceId, ...] = ()
    if "virtualMachine" in lxd:
        vm = ResourceId("VirtualMachine", lxd["virtualMachine"])
        scope.refer(document, ("spec", "lxd", "virtualMachine"), vm)
        needs = (vm,)
    spec["lxd"] = lxd
    return replace(scope.desired(document, spec, needs), backend=lxd_backend(document_id(document).name))


def network(scope: Scope, document: Document) -> Desired:
    """A Network."""
    spec = _without_host(scope, document)
    if "config" in spec:
        spec["config"] = raw_config(spec["config"])
    return scope.desired(document, spec)


def plain(scope: Scope, document: Document) -> Desired:
    """Profile, StoragePool, Project: LXD's own, as they are."""
    spec = _without_host(scope, document)
    if "config" in spec:
        spec["config"] = raw_config(spec["config"])
    if "devices" not in spec:
        return scope.desired(document, spec)
    spec["devices"] = raw_devices(spec["devices"])
    referred = device_references(spec["devices"])
    declared = {one for one in referred if scope.declared_on(scope.host_of(document), one)}
    return scope.desired(document, spec, declared, referred - declared)


def raw_config(given: Mapping[str, Any]) -> dict[str, str]:
    """LXD's configuration holds text only."""
    return {key: text(value) for key, value in given.items()}


def raw_devices(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """LXD's devices hold text only."""
    return {name: raw_config(device) for name, device in given.items()}


def device_references(devices: Mapping[str, Mapping[str, str]]) -> set[ResourceId]:
    """The networks and pools that devices name."""
    found = set()
    for device in devices.values():
        if device.get("type") == "nic" and "network" in device:
            found.add(ResourceId("Network", device["network"]))
        if device.get("type") == "disk" and "pool" in device:
            found.add(ResourceId("StoragePool", device["pool"]))
    return found


def _without_host(scope: Scope, document: Document) -> dict[str, Any]:
    spec = scope.spec(document)
    spec.pop("host", None)
    return spec
