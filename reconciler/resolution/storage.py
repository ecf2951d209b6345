"""RESOLVE: Disk and Volume, and what attaching them adds to their guests."""

from __future__ import annotations

from reconciler.desired import GUESTS, Desired, ResourceId
from reconciler.manifest import Document
from reconciler.resolution import through
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


def attach_disk(scope: Scope, document: Document) -> None:
    """Add it to its machine, and to the container in that which it is for."""
    spec, name = scope.spec(document), document_id(document).name
    if "attachTo" not in spec:
        return
    guest = scope.reference(document, ("spec", "attachTo"), spec["attachTo"], sorted(GUESTS))
    if guest is None:
        return
    added = {"disk": name, "format": spec.get("format", "qcow2"), "readOnly": bool(spec.get("readOnly", False))}
    if guest.kind == "Container":
        through.disk(scope, document, guest, added)
        return
    if "mount" in spec:
        scope.claim_path(document, ("spec", "mount"), guest, spec["mount"])
        added["mount"] = spec["mount"]
    scope.attach(guest, "disks", name, added)


def attach_volume(scope: Scope, document: Document) -> None:
    """Add it to every container that mounts it."""
    id, spec = document_id(document), scope.spec(document)
    for index, one in enumerate(spec.get("attachTo") or ()):
        place = ("spec", "attachTo", index)
        guest = scope.reference(document, (*place, "target"), one["target"], ("Container",))
        if guest is None:
            continue
        if scope.host_of(scope.documents[guest]) != scope.host_of(document):
            scope.problem(document, (*place, "target"), f"target: {guest} lives on another host than {id}")
            continue
        scope.claim_path(document, (*place, "path"), guest, one["path"])
        device = {"type": "disk", "pool": spec["pool"], "source": id.name, "path": one["path"]}
        scope.attach(guest, "devices", f"volume-{id.name}", device)
