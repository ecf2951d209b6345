"""The first half of a pass, again and again: what was prepared is kept, and when files are others only that is prepared
anew which hangs on them.

What comes of it is equal to what preparing everything would come to, or it is not done. ``again`` is for files that are
known to be the only ones, and gives up whenever a change is not plainly one of single resources. ``whole`` reads
everything, and takes over what is as it was; only where anything is wrong it begins from scratch (but for parsing), and
tells all there is to tell.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from reconciler import composition, manifest, policy, resolution, validation
from reconciler.desired import Desired, ResourceId
from reconciler.known import Answers, Known, Reading, answering, check_again, from_scratch, taken_over
from reconciler.manifest import Document
from reconciler.origin import Disk, Origin
from reconciler.preparation import Wanted, compose
from reconciler.problems import ManifestError
from reconciler.resolution.again import Anew


@dataclass(frozen=True, slots=True)
class Change:
    """What is wanted by now, and which resources are wanted otherwise than before, or not any more."""

    wanted: Wanted
    moved: frozenset[ResourceId]


@dataclass(slots=True)
class _Edit:
    """What some files have become. old, new: documents; by_file: as in ``Known``, None: gone; beside: no manifests."""

    old: list[Document] = field(default_factory=list)
    new: list[Document] = field(default_factory=list)
    by_file: dict[str, tuple[ResourceId, ...] | None] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)


class Prepared:
    """Manifests, as often as somebody asks. For one thread."""

    def __init__(self, paths: Sequence[str] = ()) -> None:
        """paths: on this machine's disk, as long as nobody names another origin."""
        self._disk = Disk(tuple(paths))
        self._parsed = validation.Parsed()
        self._known: Known | None = None
        self._last: Known | None = None

    def forget(self) -> None:
        """What was prepared was of no use: the next time it is all of it."""
        self._known = self._last = None

    def whole(
        self,
        before: Mapping[ResourceId, Desired] = MappingProxyType({}),
        origin: Origin | None = None,
        scratch: bool = False,
    ) -> Wanted:
        """All of it. Raises ManifestError with every problem; calls no backend.

        before:  what is equal to this is the very same, and takes no memory twice
        origin:  where the files are by now; None: behind the paths
        scratch: nothing is taken over but what was parsed
        """
        last = self._last = self._known or self._last
        self._known = None
        reading = self._read(origin or self._disk)
        if last is None or scratch or not taken_over(last, reading):
            if last is not None and not last.whole:
                self._last = None
            composed = compose(reading.documents, load=reading.listed, parsed=self._parsed)
            last = from_scratch(reading, composed, before)
        self._parsed.end()
        self._known, self._last = last, None
        return last.wanted

    def again(self, paths: Collection[str]) -> Change | None:
        """What it comes to now that these files (absolute paths) are others, new, or gone, and no others; None: that is
        only known when all of it is read. Only of this machine's disk."""
        known, self._known = self._known, None
        if known is None:
            return None
        try:
            change = _again(known, self._parsed, paths)
        except (Anew, ManifestError, OSError):
            self._last = known if known.whole else None
            return None
        self._known = known
        return change

    def _read(self, origin: Origin) -> Reading:
        """Raises ManifestError with every problem of the texts."""
        rules, asked = policy.load(), set[str]()
        answers: Answers = {}

        def listed(path: str) -> Sequence[Document]:
            return origin.load_listed(path, self._parsed, asked.update)

        around = answering(origin.surroundings(rules, asked), answers)
        loaded = origin.load(self._parsed)
        files = loaded.files if isinstance(loaded, validation.Loaded) else ()
        return Reading(origin, loaded, files, listed, around, rules, asked, answers)


def _place(paths: Sequence[str], file: str) -> tuple[Any, ...]:
    """Sorts as files are read: a folder's own before those in folders of it."""
    top = next(index for index, path in enumerate(paths) if file == path or file.startswith(os.path.join(path, "")))
    *folders, name = file[len(os.path.join(paths[top], "")) :].split(os.sep)
    return top, *((1, one) for one in folders), (0, name)


def _again(known: Known, parsed: validation.Parsed, paths: Iterable[str]) -> Change:
    """Raises Anew, ManifestError or OSError where all of it has to be read; ``known`` may not be whole then."""
    asked = set[str]()
    rules = policy.load()
    around = answering(known.origin.surroundings(rules, asked), known.answers)
    if rules != known.rules or around.remotes != known.remotes:
        raise Anew
    edit = _read(known, parsed, paths)
    if not (edit.by_file or edit.beside):
        return Change(known.wanted, frozenset())
    policy.load(edit.by_file)
    known.whole = False
    changed = _take(known, edit)
    if not known.claimed.still_right(edit.old, edit.new, known.resolved.documents):
        raise Anew
    before = known.wanted.desired
    differing = known.resolved.update(changed, around, edit.beside)
    if asked - known.asked:
        raise Anew  # what of all of it hangs on such a file is not known
    after = known.resolved.desired
    check_again(known, rules, differing)
    moved = frozenset(id for id in differing if not alike(before.get(id), after.get(id)))
    known.wanted = replace(known.wanted, desired=after, files=_files(known, edit, differing))
    known.whole = True
    return Change(known.wanted, moved)


def _read(known: Known, parsed: validation.Parsed, paths: Iterable[str]) -> _Edit:
    """What these files hold by now. Raises Anew where one of them could matter otherwise than by what it holds."""
    edit = _Edit()
    for path in paths:
        folder, name = os.path.split(path)
        shown = os.path.join(known.folders[folder], name) if folder in known.folders else path
        is_new = known.composing is None and folder in known.folders and manifest.is_manifest(name)
        if shown in known.by_file or is_new:
            _read_manifest(known, parsed, edit, shown)
        elif path in known.resolved.asking.to:
            edit.beside.add(path)
        elif path in known.asked or manifest.is_manifest(name) or os.path.islink(path) or os.path.isdir(path):
            raise Anew
    return edit


def _read_manifest(known: Known, parsed: validation.Parsed, edit: _Edit, file: str) -> None:
    """Raises Anew unless everything in it is right, and no more than resources."""
    environments = known.composing.environments if known.composing is not None else ()
    if os.path.basename(file) == manifest.ENVIRONMENT or file in environments:
        raise Anew
    source = manifest.read_again(file)
    written, problems = manifest.parse_source(source) if source is not None else ([], [])
    if problems or any(map(composition.is_environment, written)):
        raise Anew
    if source is not None:
        parsed.keep(file, source.data, written)
    found = known.composing.again(file, written) if known.composing is not None else written
    sound, wrong = validation.check_each(found or ())
    if found is None or wrong:
        raise Anew
    parsed.found_right(sound)
    edit.old += [known.resolved.documents[id] for id in known.by_file.get(file, ())]
    edit.new += sound
    edit.by_file[file] = tuple(map(resolution.document_id, sound)) if source is not None else None


def _take(known: Known, edit: _Edit) -> set[ResourceId]:
    """Exchange the documents; which are others now. Raises Anew where one of them is declared twice."""
    documents = known.resolved.documents
    changes: dict[ResourceId, Document | None] = {resolution.document_id(one): None for one in edit.old}
    for one in edit.new:
        id = resolution.document_id(one)
        if changes.get(id) is not None or (id not in changes and id in documents):
            raise Anew
        changes[id] = one
    shifted = any(ids and ids != known.by_file.get(file) for file, ids in edit.by_file.items())
    if known.composing is not None and any(ids != known.by_file.get(file) for file, ids in edit.by_file.items()):
        raise Anew  # how others are composed can hang on which there are
    for file, ids in edit.by_file.items():
        if ids is None:
            known.by_file.pop(file, None)
        else:
            known.by_file[file] = ids
    if not any(known.by_file.values()):
        raise Anew
    order = None
    if shifted:
        place = partial(_place, known.origin.paths if isinstance(known.origin, Disk) else ())
        known.by_file = {file: known.by_file[file] for file in sorted(known.by_file, key=place)}
        order = [id for ids in known.by_file.values() for id in ids]
    known.resolved.take(changes, order)
    return set(changes)


def _files(known: Known, edit: _Edit, differing: Iterable[ResourceId]) -> frozenset[str]:
    """What all of it hangs on; some of it perhaps not any more."""
    files = known.wanted.files
    hanging = (known.resolved.asking.of.get(id, ()) for id in differing)
    fresh = {one for some in hanging for one in some if isinstance(one, str)}
    fresh |= {file for file, ids in edit.by_file.items() if ids is not None}
    gone = {file for file, ids in edit.by_file.items() if ids is None}
    return files if fresh <= files and not gone else files - gone | fresh


def alike(one: Desired | None, other: Desired | None) -> bool:
    """Whether both want the very same, wherever it stands in the files."""
    if one is None or other is None or one.id != other.id:
        return one is other
    return one is other or (
        one.spec == other.spec
        and (one.backend, one.needs, one.expects) == (other.backend, other.needs, other.expects)
        and (one.labels, one.renamed_from, one.payload) == (other.labels, other.renamed_from, other.payload)
        and (one.recipes, one.later, one.users) == (other.recipes, other.later, other.users)
    )
