"""RESOLVE, again: some documents changed → what hangs on them is resolved anew, and nothing else. Pure.

Every resource's resolution notes what it asked for: other documents (also those that are not there) and files beside
the manifests. What changed is resolved anew together with whoever asked for it. Attachments share what they add to, so
all of one guest are taken together. Any problem ends it: whoever called begins from scratch, and is told every one.
"""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.desired import Desired, ResourceId
from reconciler.manifest import Document
from reconciler.resolution.bonds import Bonds
from reconciler.resolution.images import Inline, declared_image, inline_image
from reconciler.resolution.kinds import ATTACH, BY_KIND, refuse_cycles
from reconciler.resolution.noting import Noting
from reconciler.resolution.scope import Scope, Surroundings, document_id
from reconciler.resolution.through import refuse_alike

Asked = ResourceId | str
"""A document, or the absolute path of a file."""
_IMAGE = "Image"


class Anew(Exception):
    """It has to be begun from scratch."""


@dataclass(slots=True)
class _Round:
    """One change being followed. documents, read: note what is asked for, into one and the same set."""

    documents: Noting[ResourceId, Document]
    surroundings: Surroundings
    asked: dict[ResourceId, set[Any]] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    gone: set[ResourceId] = field(default_factory=set)
    made: dict[ResourceId, Desired] = field(default_factory=dict)

    @classmethod
    def of(cls, documents: Noting[ResourceId, Document], surroundings: Surroundings) -> _Round:
        def read(path: str, base: str) -> bytes:
            documents.asked.add(os.path.abspath(os.path.join(base, path)))
            return surroundings.read(path, base)

        return cls(documents, replace(surroundings, read=read))

    def scope(self, attached: dict[ResourceId, Any]) -> Scope:
        return Scope(self.documents, self.surroundings, attached=attached, identities=self.identities)

    def noting(self, id: ResourceId) -> None:
        """What is asked for from now on is noted under that name."""
        self.documents.asked = self.asked.setdefault(id, set())


@dataclass(slots=True)
class Resolution:
    """What was resolved last, and what each part of it hangs on.

    attached: as in Scope; touching: attachment ↔ guests that it adds to; images: guest ↔ (image, host) that it needs;
    inline: guest → images that stand in it; homes: image → how many need it on each host; on_hosts: image → its ids
    """

    documents: Noting[ResourceId, Document] = field(default_factory=Noting)
    desired: dict[ResourceId, Desired] = field(default_factory=dict)
    asking: Bonds = field(default_factory=Bonds)
    touching: Bonds = field(default_factory=Bonds)
    attached: dict[ResourceId, Any] = field(default_factory=dict)
    images: Bonds = field(default_factory=Bonds)
    inline: dict[ResourceId, dict[str, Inline]] = field(default_factory=dict)
    homes: dict[str, Counter[str]] = field(default_factory=dict)
    on_hosts: dict[str, tuple[ResourceId, ...]] = field(default_factory=dict)

    def take(self, changes: Mapping[ResourceId, Document | None], order: Iterable[ResourceId] | None = None) -> None:
        """These documents are others now, new, or gone (None). order: of all of them, where it is another one by now:
        it says which of several comes first."""
        for id, document in changes.items():
            if document is not None:
                self.documents[id] = document
            else:
                self.documents.pop(id, None)
        if order is not None:
            self.documents = Noting({id: dict.__getitem__(self.documents, id) for id in order})

    def update(
        self, changed: Collection[ResourceId], surroundings: Surroundings, files: Collection[str] = ()
    ) -> set[ResourceId]:
        """Resolve what hangs on these documents, and on files beside them. ``desired`` is a new mapping then, and what
        differs in it comes back. Raises Anew when anything is wrong: throw this away then."""
        now = _Round.of(self.documents, surroundings)
        dirty = set(changed) | self.asking.who([*changed, *files])
        dirty |= self._attach(now, {id for id in dirty if id.kind in ATTACH})
        self._resolve(now, dirty)
        self._make_images(now, {id.name for id in dirty if id.kind == _IMAGE} | now.hosts)
        for id, asked in now.asked.items():
            self.asking.put(id, asked - {id})
        return self._exchange(now)

    def files(self) -> set[str]:
        """Every file beside the manifests that was read, but for those that secrets are made of."""
        return {one for one in self.asking.to if isinstance(one, str)}

    def _in_order(self, ids: Collection[ResourceId]) -> list[ResourceId]:
        if len(ids) <= 1:
            return [id for id in ids if dict.__contains__(self.documents, id)]
        return [id for id in self.documents if id in ids]

    def _attach(self, now: _Round, again: set[ResourceId]) -> set[ResourceId]:
        """All attachments of every guest that one of these adds to; they and the guests come back."""
        if not again:
            return set()
        touched = {guest for id in again for guest in self.touching.of.get(id, ())}
        while True:
            again |= self.touching.who(touched)
            scope, touching = self._attached_anew(now, again)
            found = {guest for guests in touching.values() for guest in guests}
            if found <= touched:
                break
            touched |= found
        for id in again:
            self.touching.put(id, touching.get(id, ()))
        for guest in touched:
            self.attached.pop(guest, None)
            if parts := scope.attached.get(guest):
                self.attached[guest] = parts
        _check(scope)
        return touched | again

    def _attached_anew(self, now: _Round, ids: set[ResourceId]) -> tuple[Scope, dict[ResourceId, set[ResourceId]]]:
        shared = [Noting[ResourceId, Any]() for _ in range(4)]
        scope = now.scope(shared[0])
        scope.mounted, scope.alike, scope.passages = shared[1:]
        touching: dict[ResourceId, set[ResourceId]] = {}
        for id in self._in_order(ids):
            touched = touching[id] = set()
            for one in shared:
                one.asked = touched
            now.noting(id)
            ATTACH[id.kind](scope, dict.__getitem__(self.documents, id))
        refuse_alike(scope)
        return scope, touching

    def _resolve(self, now: _Round, dirty: Collection[ResourceId]) -> None:
        scope = now.scope(self.attached)
        for id in dirty:
            document = dict.get(self.documents, id)
            if document is None:
                now.gone.add(id)
                now.asked[id] = set()
                self._need_images(now, id, {}, {})
            elif id.kind in BY_KIND:
                scope.image_hosts, scope.inline_images, scope.recipes = {}, {}, {}
                now.noting(id)
                now.made[id] = BY_KIND[id.kind](scope, document)
                self._need_images(now, id, scope.image_hosts, scope.inline_images)
        _check(scope)

    def _need_images(
        self, now: _Round, id: ResourceId, hosts: Mapping[str, Collection[str]], inline: dict[str, Inline]
    ) -> None:
        """The guest needs these; of images that another set of hosts needs by now the names are noted."""
        before = self.images.of.get(id, frozenset())
        after = {(name, host) for name, found in hosts.items() for host in found}
        for name, host in before ^ after:
            homes = self.homes.setdefault(name, Counter())
            homes[host] += 1 if (name, host) in after else -1
            if homes[host] <= 1:
                now.hosts.add(name)
        self.images.put(id, after)
        now.hosts |= self.inline.pop(id, {}).keys() | inline.keys()
        if inline:
            self.inline[id] = inline

    def _make_images(self, now: _Round, names: Collection[str]) -> None:
        """Every one of these images, once for each host that needs it."""
        for name in names:
            now.gone.update(self.on_hosts.pop(name, ()))
            self.homes[name] = +self.homes.get(name, Counter())
            scope = now.scope({})
            if self.homes[name]:
                scope.image_hosts[name] = set(self.homes[name])
            else:
                del self.homes[name]
            id = ResourceId(_IMAGE, name)
            now.noting(id)
            found = self._image(scope, name)
            _check(scope)
            now.made |= {one.id: one for one in found}
            if found:
                self.on_hosts[name] = tuple(one.id for one in found)

    def _image(self, scope: Scope, name: str) -> list[Desired]:
        document = self.documents.get(ResourceId(_IMAGE, name))
        if document is not None:
            return declared_image(scope, document)
        needing = self.images.who((name, host) for host in self.homes.get(name, ()))
        users = {id for id in needing if name in self.inline.get(id, {})}
        last = self._in_order(users)[-1:]  # several guests may say the very same: the last one is pointed at
        return inline_image(scope, name, self.inline[last[0]][name]) if last else []

    def _exchange(self, now: _Round) -> set[ResourceId]:
        desired = dict(self.desired)
        differing = {id for id in now.gone - now.made.keys() if desired.pop(id, None) is not None}
        for id, want in now.made.items():
            if desired.get(id) != want:
                desired[id] = want
                differing.add(id)
        scope = now.scope({})
        refuse_cycles(scope, desired, now.made)
        _check(scope)
        self.desired = desired
        return differing


def _check(scope: Scope) -> None:
    if scope.problems:
        raise Anew


def by_id(documents: Iterable[Document]) -> dict[ResourceId, Document]:
    """Documents by their names, in their order."""
    return {document_id(one): one for one in documents}
