"""RESOLVE: which function resolves which kind, which kinds add to guests, and that nothing needs itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from reconciler.desired import Desired, ResourceId
from reconciler.manifest import Document
from reconciler.resolution import attachments
from reconciler.resolution.attachments import device, port_forward, share
from reconciler.resolution.guests import container, virtual_machine
from reconciler.resolution.infrastructure import host, network, plain
from reconciler.resolution.scope import Scope
from reconciler.resolution.storage import attach_disk, attach_volume, disk, volume

BY_KIND: Mapping[str, Callable[[Scope, Document], Desired]] = {
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
ATTACH: Mapping[str, Callable[[Scope, Document], None]] = {
    "Disk": attach_disk,
    "Volume": attach_volume,
    **attachments.ATTACH,
}


def refuse_cycles(scope: Scope, desired: Mapping[ResourceId, Desired], starts: Iterable[ResourceId]) -> None:
    """Depth-first, without recursion; the first cycle that can be come by from ``starts`` is told, as the path that
    closes it."""
    settled: set[ResourceId] = set()
    for start in starts:
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
