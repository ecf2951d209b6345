"""RESOLVE: validated documents → {ResourceId: Desired}: references followed, defaults filled in, quantities as numbers.

Pure: what it must know of the outside (local files, the user's LXD remotes) comes in as Surroundings. What is attached
to a guest (Disk, Volume, Share …) becomes part of that guest's spec here, so that a plan shows it where it acts.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.desired import Desired, ResourceId
from reconciler.manifest import Document
from reconciler.problems import ManifestError
from reconciler.resolution.images import images
from reconciler.resolution.kinds import ATTACH, BY_KIND, refuse_cycles
from reconciler.resolution.scope import Scope, Surroundings, document_id
from reconciler.resolution.through import refuse_alike

__all__ = ["Surroundings", "document_id", "resolve"]


def resolve(documents: Iterable[Document], surroundings: Surroundings) -> dict[ResourceId, Desired]:
    """All resources that the documents declare, in their resolved terms. Raises ManifestError with every problem."""
    scope = Scope.of(documents, surroundings)
    for id, document in scope.documents.items():  # before the guests themselves are resolved
        if id.kind in ATTACH:
            ATTACH[id.kind](scope, document)
    refuse_alike(scope)
    found = [BY_KIND[id.kind](scope, document) for id, document in scope.documents.items() if id.kind in BY_KIND]
    found += images(scope)  # last: by now it is known which hosts need which image
    desired = {one.id: one for one in found}
    if not scope.problems:
        refuse_cycles(scope, desired, desired)
    if scope.problems:
        raise ManifestError(scope.problems)
    return desired
