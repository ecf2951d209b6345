"""The first half of a pass, again and again: what was prepared is kept, and when files are saved only that is prepared
anew which hangs on them.

What comes of it is equal to what preparing everything would come to, or it is not done: ``again`` gives up whenever a
change is not plainly one of single resources, or anything is wrong; then ``whole`` tells all there is to tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from reconciler import composition, manifest, policy, resolution, validation
from reconciler.composition.again import Composing
from reconciler.manifest import Document
from reconciler.model import Desired, ResourceId
from reconciler.preparation import Wanted, asking, check_policy, compose, noting, surroundings
from reconciler.problems import ManifestError
from reconciler.resolution.again import Anew, Resolution
from reconciler.validation.again import Claimed


@dataclass(frozen=True, slots=True)
class Change:
    """What is wanted by now, and which resources are wanted otherwise than before, or not any more."""

    wanted: Wanted
    moved: frozenset[ResourceId]


@dataclass(slots=True)
class _Known:
    """Everything that the next time needs. by_file: manifest, as people are shown it → what it declares;
    folders: each folder of manifests, absolute → as it is shown; place: in which order manifests are read;
    composing: where Environments say which manifests there are, rather than folders;
    asked: files of which it is not known what hangs on them; rules, remotes: as they were."""

    wanted: Wanted
    resolved: Resolution
    claimed: Claimed
    around: policy.Around
    by_file: dict[str, tuple[ResourceId, ...]]
    folders: dict[str, str]
    place: Callable[[str], Any]
    composing: Composing | None
    asked: frozenset[str]
    rules: policy.Policy
    remotes: Mapping[str, Mapping[str, str]]


@dataclass(slots=True)
class _Edit:
    """What some files have become. old, new: documents; by_file: as in ``_Known``, None: gone; beside: no manifests."""

    old: list[Document] = field(default_factory=list)
    new: list[Document] = field(default_factory=list)
    by_file: dict[str, tuple[ResourceId, ...] | None] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)


class Prepared:
    """Manifests behind these paths, as often as somebody asks. For one thread."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._known: _Known | None = None

    def forget(self) -> None:
        """What was prepared was of no use: the next time it is all of it."""
        self._known = None

    def whole(self, before: Mapping[ResourceId, Desired] = MappingProxyType({})) -> Wanted:
        """All of it, from scratch. Raises ManifestError with every problem; calls no backend.

        before: what is equal to this is the very same, and takes no memory twice
        """
        self._known = None
        rules, asked = policy.load(), set[str]()
        around = _noting(surroundings(), rules, asked)
        loaded = validation.load_parts(self._paths)
        composed = compose(loaded, asked.update)
        documents = composed.documents
        resolved = Resolution()
        try:
            resolved.take({resolution.document_id(one): one for one in documents})
            resolved.update(list(resolved.documents), around)
        except Anew:
            resolution.resolve(documents, around)  # tells why
            raise
        check_policy(resolved.desired, documents)
        old = ((before.get(id), want) for id, want in resolved.desired.items())
        resolved.desired = {want.id: one if one is not None and one == want else want for one, want in old}
        files = frozenset({*loaded.files, *(one.file for one in documents), *resolved.files(), *asked})
        wanted = Wanted(
            composed.environment,
            resolved.desired,
            composed.prune,
            composed.approve,
            files,
            composed.drift,
            composed.names,
        )
        by_file = _by_file(loaded.files, documents)
        self._known = _Known(
            wanted,
            resolved,
            Claimed(documents),
            policy.Around.of(resolved.desired.values()),
            by_file,
            {os.path.dirname(os.path.abspath(file)): os.path.dirname(file) for file in by_file},
            partial(_place, self._paths),
            composed.composing,
            frozenset(map(os.path.abspath, asked)),
            rules,
            around.remotes,
        )
        return wanted

    def again(self, paths: Collection[str]) -> Change | None:
        """What it comes to now that these files (absolute paths) are others, new, or gone, and no others; None: that is
        only known when all of it is prepared."""
        known, self._known = self._known, None
        if known is None:
            return None
        try:
            change = _again(known, paths)
        except (Anew, ManifestError, OSError):
            return None
        known.wanted, self._known = change.wanted, known
        return change


def _by_file(files: Iterable[str], documents: Iterable[Document]) -> dict[str, tuple[ResourceId, ...]]:
    found: dict[str, list[ResourceId]] = {file: [] for file in files}
    for one in documents:
        found.setdefault(one.file, []).append(resolution.document_id(one))
    return {file: tuple(ids) for file, ids in found.items()}


def _place(paths: Sequence[str], file: str) -> tuple[Any, ...]:
    """Sorts as files are read: a folder's own before those in folders of it."""
    top = next(index for index, path in enumerate(paths) if file == path or file.startswith(os.path.join(path, "")))
    *folders, name = file[len(os.path.join(paths[top], "")) :].split(os.sep)
    return top, *((1, one) for one in folders), (0, name)


def _again(known: _Known, paths: Iterable[str]) -> Change:
    """Raises Anew, ManifestError or OSError where all of it has to be prepared; ``known`` is of no use then."""
    asked = set[str]()
    rules = policy.load()
    around = _noting(surroundings(), rules, asked)
    if rules != known.rules or around.remotes != known.remotes:
        raise Anew
    edit = _read(known, paths)
    if not (edit.by_file or edit.beside):
        return Change(known.wanted, frozenset())
    policy.load(edit.by_file)
    changed = _take(known, edit)
    if not known.claimed.still_right(edit.old, edit.new, known.resolved.documents):
        raise Anew
    before = known.wanted.desired
    differing = known.resolved.update(changed, around, edit.beside)
    if asked - known.asked:
        raise Anew  # what of all of it hangs on such a file is not known
    after = known.resolved.desired
    _check_policy(known, rules, before, differing)
    moved = frozenset(id for id in differing if not alike(before.get(id), after.get(id)))
    return Change(replace(known.wanted, desired=after, files=_files(known, edit, differing)), moved)


def _read(known: _Known, paths: Iterable[str]) -> _Edit:
    """What these files hold by now. Raises Anew where one of them could matter otherwise than by what it holds."""
    edit = _Edit()
    for path in paths:
        folder, name = os.path.split(path)
        shown = os.path.join(known.folders[folder], name) if folder in known.folders else path
        is_new = known.composing is None and folder in known.folders and manifest.is_manifest(name)
        if shown in known.by_file or is_new:
            _read_manifest(known, edit, shown)
        elif path in known.resolved.asking.to:
            edit.beside.add(path)
        elif path in known.asked or manifest.is_manifest(name) or os.path.islink(path) or os.path.isdir(path):
            raise Anew
    return edit


def _read_manifest(known: _Known, edit: _Edit, file: str) -> None:
    """Raises Anew unless everything in it is right, and no more than resources."""
    environments = known.composing.environments if known.composing is not None else ()
    if os.path.basename(file) == manifest.ENVIRONMENT or file in environments:
        raise Anew
    source = manifest.read_again(file)
    written, problems = manifest.parse_source(source) if source is not None else ([], [])
    if problems or any(map(composition.is_environment, written)):
        raise Anew
    found = known.composing.again(file, written) if known.composing is not None else written
    sound, wrong = validation.check_each(found or ())
    if found is None or wrong:
        raise Anew
    edit.old += [known.resolved.documents[id] for id in known.by_file.get(file, ())]
    edit.new += sound
    edit.by_file[file] = tuple(map(resolution.document_id, sound)) if source is not None else None


def _take(known: _Known, edit: _Edit) -> set[ResourceId]:
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
        known.by_file = {file: known.by_file[file] for file in sorted(known.by_file, key=known.place)}
        order = [id for ids in known.by_file.values() for id in ids]
    known.resolved.take(changes, order)
    return set(changes)


def _check_policy(
    known: _Known, rules: policy.Policy, before: Mapping[ResourceId, Desired], differing: Collection[ResourceId]
) -> None:
    """Ask the administrator's file about what differs, and about all of it where what was allowed could be so because
    of something that is gone."""
    after = known.resolved.desired
    asked: Iterable[Desired] = (after[id] for id in differing if id in after)
    if any(id.kind in policy.AROUND for id in differing):
        around = policy.Around.of(after.values())
        asked = asked if around.allows(known.around) else after.values()
        known.around = around
    if policy.check(asked, rules, around=known.around):
        raise Anew


def _files(known: _Known, edit: _Edit, differing: Iterable[ResourceId]) -> frozenset[str]:
    """What all of it hangs on; some of it perhaps not any more."""
    files = known.wanted.files
    hanging = (known.resolved.asking.of.get(id, ()) for id in differing)
    fresh = {one for some in hanging for one in some if isinstance(one, str)}
    fresh |= {file for file, ids in edit.by_file.items() if ids is not None}
    gone = {file for file, ids in edit.by_file.items() if ids is None}
    return files if fresh <= files and not gone else files - gone | fresh


def _noting(around: resolution.Surroundings, rules: policy.Policy, asked: set[str]) -> resolution.Surroundings:
    """The same surroundings, and a note of every file that images and secrets are made of; what else is read is noted
    by whoever resolves."""
    noted = noting(around, asked.add)
    return replace(around, stamp=noted.stamp, secret=asking(rules, noted.read))


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
