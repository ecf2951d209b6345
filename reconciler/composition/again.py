"""COMPOSE, again: a file that Environments lead to was saved → what its documents come to, with no other one looked at.

Only for an edit that leaves everything else as it was: the same documents, by names that are written out. What patches
and values add is counted on; what they no longer add is not taken off, so this gives up too early rather than too late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reconciler.composition.documents import metadata_of, spec_of
from reconciler.composition.gathering import Aim, Gathering, Part
from reconciler.composition.values import fill_in
from reconciler.manifest import Document


class Composing:
    """How each file's documents were composed."""

    def __init__(self, outer: Sequence[Document], parts: Sequence[Part], grown: int, room: int) -> None:
        self.environments = frozenset(one.file for one in (*outer, *(one for part in parts for one in part.chain)))
        self._chains = {part.document.file: part.chain for part in parts}
        self._aims = Counter(aim for part in parts for aim in part.aimed)
        self._aimed = {_place(part.document): part.aimed for part in parts if part.aimed}
        self._grown, self._room = grown, room

    def again(self, file: str, documents: Sequence[Document]) -> list[Document] | None:
        """What these, as they stand in the file now, come to; None: that is not known without all others. Whatever is
        wrong with them is not told either: throw this away then."""
        chain = self._chains.get(file)
        if chain is None or any("${" in str(metadata_of(one).get("name")) for one in documents):
            return None
        gathering = Gathering(_nothing, grown=self._grown)
        gathering.parts = [Part(one, chain) for one in documents]
        if any(spec_of(environment).get("patches") for environment in chain):
            from reconciler.composition.patching import patch_alone

            for part in gathering.parts:
                for environment in reversed(chain):
                    patch_alone(gathering, environment, part)
        composed, problems, room = fill_in(gathering.parts, self._room)
        if problems or gathering.problems or not self._aim(gathering.parts):
            return None
        self._grown, self._room = gathering.grown, room
        return composed

    def _aim(self, parts: Sequence[Part]) -> bool:
        """Whether every patch is aimed at something still."""
        changed: set[Aim] = set()
        for part in parts:
            place = _place(part.document)
            before = self._aimed.pop(place, ())
            if part.aimed:
                self._aimed[place] = part.aimed
            self._aims.update(part.aimed)
            self._aims.subtract(before)
            changed.update(before)
        return all(self._aims[aim] > 0 for aim in changed)


def _place(document: Document) -> tuple[str, int]:
    return document.file, document.index


def _nothing(_path: str) -> Sequence[Document]:
    return ()
