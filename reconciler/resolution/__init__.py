"""RESOLVE: validated documents → {ResourceId: Desired}: references followed, defaults filled in, quantities as numbers.

Pure: what it must know of the outside (local files, the user's LXD remotes) comes in as Surroundings. What is attached
to a guest (Disk, Volume, Share …) becomes part of that guest's spec here, so that a plan shows it where it acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.manifest import Document
from reconciler.model import Desired, ResourceId
from reconciler.problems import ManifestError
from reconciler.resolution.attachments import ATTACH, device, port_forward, share
from reconciler.resolution.guests import container, virtual_machine
from reconciler.resolution.images import images
from reconciler.resolution.infrastructure import host, network, plain
from reconciler.resolution.scope import Scope, Surroundings
from reconciler.resolution.storage import attach_disk, attach_volume, disk, volume
from reconciler.resolution.through import refuse_alike

__all__ = ["Surroundings", "resolve"]

_BY_KIND = {
    "VirtualMachine": virtual_machine,
    "Container": container,
    "Network": network,
    "Profile": plain,
    "StoragePool": plain,
    "Project": plain,
    "Volume": volume,
    "Disk": disk,
    "Host": host,
    "Share": share,
    "Device": device,
    "PortForward": port_forward,
}
_ATTACH = {"Disk": attach_disk, "Volume": attach_volume, **ATTACH}


def resolve(documents: Iterable[Document], surroundings: Surroundings) -> dict[ResourceId, Desired]:
    """All resources that the documents declare, in their resolved terms. Raises ManifestError with every problem."""
    scope = Scope.of(documents, surroundings)
    for id, document in scope.documents.items():  # before the guests themselves are resolved
        if id.kind in _ATTACH:
            _ATTACH[id.kind](scope, document)
    refuse_alike(scope)
    found = [_BY_KIND[id.kind](scope, document) for id, document in scope.documents.items() if id.kind in _BY_KIND]
    found += images(scope)  # last: by now it is known which hosts need which image
    desired = {one.id: one for one in found}
    if not scope.problems:
        _refuse_cycles(scope, desired)
    if scope.problems:
        raise ManifestError(scope.problems)
    return desired


def _refuse_cycles(scope: Scope, desired: Mapping[ResourceId, Desired]) -> None:
    """Depth-first, without recursion; each cycle is told once, as the path that closes it."""
    settled: set[ResourceId] = set()
    for start in desired:
        path: list[ResourceId] = []
        trail = [(start, iter(desired[start].needs))] if start not in settled else []
        path = [start] if trail else []
        while trail:
            id, needs = trail[-1]
            need = next((one for one in needs if one in desired and one not in settled), None)
            if need is None:
                settled.add(id)
                trail.pop()
                path.pop()
            elif need in path:
                chain = " → ".join(str(one) for one in [*path[path.index(need) :], need])
                scope.problem(scope.documents.get(need), ("spec",), f"these need each other: {chain}")
                return
            else:
                trail.append((need, iter(desired[need].needs)))
                path.append(need)
