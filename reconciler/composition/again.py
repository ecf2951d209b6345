"""COMPOSE, again: some files that Environments lead to are others by now → only what is written in these is composed.

``again`` is for a saved file that leaves everything else as it was: the same documents, by names that are written out.
``anew`` is for whatever else may have changed: all roads are followed, and what is the same on the same one taken over.
What patches and values add is counted on; what they no longer add is not taken off, so both give up too early rather
than too late. Whatever is wrong ends them: compose everything then, which tells all there is to tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.composition.documents import LoadPath, is_environment, metadata_of, spec_of
from reconciler.composition.gathering import Aim, Gathering, Part
from reconciler.composition.values import fill_in
from reconciler.manifest import Document

Chain = tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """What a document came to. written: as it stands in its file; chain, aimed: as of a Part."""

    written: Document
    chain: Chain
    document: Document
    aimed: tuple[Aim, ...]


class Composing:
    """How each document was composed; of a set in which nothing is wrong."""

    def __init__(self, followed: Iterable[Document], made: Iterable[_Made], grown: int, room: int) -> None:
        self.followed = tuple(followed)
        self.environments = frozenset(one.file for one in self.followed)
        self._made: dict[str, list[_Made]] = {}
        for one in made:
            self._made.setdefault(one.written.file, []).append(one)
        self._aims = Counter(aim for some in self._made.values() for one in some for aim in one.aimed)
        self._grown, self._room = grown, room

    @classmethod
    def of(cls, gathering: Gathering, composed: Sequence[Document], room: int) -> Composing:
        """What was just composed, and nothing is wrong with it."""
        return cls(gathering.followed, _made(gathering.parts, composed), gathering.grown, room)

    def again(self, file: str, documents: Sequence[Document]) -> list[Document] | None:
        """What these, as they stand in the file now, come to; None: that is not known without all others."""
        before = self._made.get(file)
        if before is None or any("${" in str(metadata_of(one).get("name")) for one in documents):
            return None
        made = self._make([Part(one, before[0].chain) for one in documents])
        if made is None or not self._aim(before, made):
            return None
        self._made[file] = made
        return [one.document for one in made]

    def anew(self, given: Sequence[Document], load: LoadPath) -> tuple[Document, list[Document], Composing] | None:
        """The outermost Environment, what it comes to, and how; None: compose everything."""
        outer = [one for one in given if is_environment(one)]
        gathering = Gathering(load, patching=False)
        gathering.parts += [Part(one, ()) for one in given if not is_environment(one)]
        for one in outer:
            gathering.follow(one, ())
        if len(outer) != 1 or gathering.problems or not gathering.parts:
            return None
        same = [self._same(part) for part in gathering.parts]
        fresh = self._make([part for part, known in zip(gathering.parts, same, strict=True) if known is None])
        if fresh is None:
            return None
        others = iter(fresh)
        made = [known if known is not None else next(others) for known in same]
        now = Composing(gathering.followed, made, self._grown, self._room)
        return (outer[0], [one.document for one in made], now) if now.all_aimed() else None

    def all_aimed(self) -> bool:
        """Whether every patch is aimed at something."""
        patches = ((one, len(spec_of(one).get("patches") or ())) for one in self.followed)
        return all(self._aims[(one.file, one.index, at)] > 0 for one, count in patches for at in range(count))

    def _same(self, part: Part) -> _Made | None:
        """What the very same document came to on the very same road."""
        known = self._made.get(part.document.file, ())
        made = next((one for one in known if one.written is part.document), None)
        return made if made is not None and list(map(id, made.chain)) == list(map(id, part.chain)) else None

    def _make(self, parts: Sequence[Part]) -> list[_Made] | None:
        """Patched and filled in, each by itself; None when anything is wrong with them."""
        gathering = Gathering(_nothing, grown=self._grown)
        for part in parts:
            if any(spec_of(environment).get("patches") for environment in part.chain):
                from reconciler.composition.patching import patch_alone

                for environment in reversed(part.chain):
                    patch_alone(gathering, environment, part)
        composed, problems, room = fill_in(parts, self._room)
        if problems or gathering.problems:
            return None
        self._grown, self._room = gathering.grown, room
        return list(_made(parts, composed))

    def _aim(self, before: Sequence[_Made], after: Sequence[_Made]) -> bool:
        """Whether every patch is aimed at something still."""
        left = Counter(aim for one in before for aim in one.aimed)
        self._aims.subtract(left)
        self._aims.update(aim for one in after for aim in one.aimed)
        return all(self._aims[aim] > 0 for aim in left)


def _made(parts: Sequence[Part], composed: Sequence[Document]) -> Iterator[_Made]:
    for part, document in zip(parts, composed, strict=True):
        yield _Made(part.written, part.chain, document, part.aimed)


def _nothing(_path: str) -> Sequence[Document]:
    return ()
