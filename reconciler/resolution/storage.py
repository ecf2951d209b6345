"""RESOLVE: Disk and Volume, and what attaching them adds to their guests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.manifest import Document
from reconciler.model import Desired, ResourceId
from reconciler.resolution.infrastructure import raw_config
from reconciler.resolution.scope import Scope, document_id


def disk(scope: Scope, document: Document) -> Desired:
    """A Disk by itself; ``attachTo`` was moved to the guest."""
    spec = scope.spec(document)
    spec.pop("attachTo", None)
    if "size" in spec:
        spec["size"] = scope.size(document, ("spec", "size"), spec["size"])
    if "path" in spec:
        spec["path"] = scope.path(document, spec["path"])
    return scope.desired(document, spec)


def volume(scope: Scope, document: Document) -> Desired:
    """A Volume by itself; ``attachTo`` was moved to the guests."""
    spec = scope.spec(document)
    for gone in ("attachTo", "host"):
        spec.pop(gone, None)
    if "size" in spec:
        spec["size"] = scope.size(document, ("spec", "size"), spec["size"])
    if "config" in spec:
        spec["config"] = raw_config(spec["config"])
    pool = ResourceId("StoragePool", spec["pool"])
    if scope.declared_on(scope.host_of(document), pool):
        return scope.desired(document, spec, (pool,))
    return scope.desired(document, spec, (), (pool,))


def attach_all(scope: Scope) -> None:
    """Note at every guest what is attached to it, before the guests themselves are resolved."""
    for id, document in scope.documents.items():
        spec = scope.spec(document)
        if id.kind == "Disk" and "attachTo" in spec:
            _attach_disk(scope, document, id, spec)
        elif id.kind == "Volume":
            for index, one in enumerate(spec.get("attachTo") or ()):
                _attach_volume(scope, document, id, spec, one, ("spec", "attachTo", index))


def _attach_disk(scope: Scope, document: Document, id: ResourceId, spec: Mapping[str, Any]) -> None:
    guest = scope.reference(document, ("spec", "attachTo"), spec["attachTo"], ("VirtualMachine",))
    if guest is not None:
        added = {"disk": id.name, "format": spec.get("format", "qcow2"), "readOnly": bool(spec.get("readOnly", False))}
        scope.attached_disks.setdefault(guest, {})[id.name] = added


def _attach_volume(
    scope: Scope,
    document: Document,
    id: ResourceId,
    spec: Mapping[str, Any],
    one: Mapping[str, Any],
    path: Sequence[str | int],
) -> None:
    guest = scope.reference(document, (*path, "target"), one["target"], ("Container",))
    if guest is None:
        return
    if scope.host_of(scope.documents[guest]) != scope.host_of(document):
        scope.problem(
            document, (*path, "target"), f"target: {guest} lives on another host than {document_id(document)}"
        )
        return
    device = {"type": "disk", "pool": spec["pool"], "source": id.name, "path": one["path"]}
    scope.attached_volumes.setdefault(guest, {})[f"volume-{id.name}"] = device
