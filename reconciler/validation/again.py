"""VALIDATE, again: a set was right together; is it still, now that some of its documents are others?

Only those are compared that could clash: who claims what a changed document claims. ``check_set`` decides, as always.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping

from reconciler.desired import ResourceId
from reconciler.manifest import Document
from reconciler.validation.together import check_set, claims

_OTHER_GUEST = {"Container": "VirtualMachine", "VirtualMachine": "Container"}


class Claimed:
    """Who claims what, of a set that is right together."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._by: dict[Hashable, list[ResourceId]] = {}
        for document in documents:
            self._enter(document)

    def still_right(
        self, old: Collection[Document], new: Collection[Document], documents: Mapping[ResourceId, Document]
    ) -> bool:
        """Whether the set is right with the new ones instead of the old. documents: all of it, as it is by now."""
        for document in old:
            self._leave(document)
        for document in new:
            self._enter(document)
        if any(map(_gives_host, (*old, *new))):  # on which machine others listen can be another one now
            return not check_set(list(documents.values()))
        return not check_set(self._neighbours(new, documents))

    def _neighbours(self, new: Iterable[Document], documents: Mapping[ResourceId, Document]) -> list[Document]:
        """The new ones, all that they could clash with, and the hosts that all of these are on."""
        ids: set[ResourceId] = set()
        for document in new:
            id = _id(document)
            ids |= {id, ResourceId(_OTHER_GUEST.get(id.kind, id.kind), id.name)}
            for one in (*claims(document), id):
                ids.update(self._by.get(one, ()))
                if isinstance(one, ResourceId):
                    ids.add(one)
        found = {id: documents[id] for id in ids if id in documents}
        hosts = {str((one.data.get("spec") or {}).get("host", "")) for one in found.values()}
        giving = {ResourceId(kind, name) for name in hosts for kind in ("Host", "VirtualMachine")}
        return list((found | {id: documents[id] for id in giving if id in documents}).values())

    def _enter(self, document: Document) -> None:
        for one in claims(document):
            self._by.setdefault(one, []).append(_id(document))

    def _leave(self, document: Document) -> None:
        for one in claims(document):
            self._by[one].remove(_id(document))
            if not self._by[one]:
                del self._by[one]


def _id(document: Document) -> ResourceId:
    return ResourceId(document.data["kind"], document.data["metadata"]["name"])


def _gives_host(document: Document) -> bool:
    kind = document.data["kind"]
    return bool(kind == "Host" or (kind == "VirtualMachine" and (document.data.get("spec") or {}).get("lxd")))
