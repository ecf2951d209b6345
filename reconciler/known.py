"""The first half of a pass, kept: all that was prepared, made from scratch or taken over from what is as it was.

Taking over comes to what beginning from scratch would come to, or it is given up. What is worth it: nothing that is as
it was is parsed, checked, composed or resolved again; who reads all files to see that is ``again``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler import composition, policy, resolution, validation
from reconciler.composition import Composition
from reconciler.composition.again import Composing
from reconciler.desired import Desired, ResourceId
from reconciler.manifest import Document
from reconciler.origin import Origin
from reconciler.preparation import Wanted, check_policy
from reconciler.problems import ManifestError
from reconciler.resolution.again import Anew, Resolution
from reconciler.validation.again import Claimed

Answers = dict[tuple[str, str], Any]
"""What files of this machine that manifests point at looked like: (question, path) → answer."""


@dataclass(slots=True)
class Known:
    """Everything that the next time needs. by_file: manifest, as people are shown it → what it declares;
    folders: each folder of manifests, absolute → as it is shown; composing: where Environments say which manifests
    there are, rather than folders; asked: files of which it is not known what hangs on them; rules, remotes: as they
    were; whole: whether nothing of it was exchanged half."""

    origin: Origin
    wanted: Wanted
    resolved: Resolution
    claimed: Claimed
    around: policy.Around
    by_file: dict[str, tuple[ResourceId, ...]]
    folders: dict[str, str]
    composing: Composing | None
    asked: frozenset[str]
    answers: Answers
    rules: policy.Policy
    remotes: Mapping[str, Mapping[str, str]]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """All manifests as they are written now. files: every one that was read, where they lie on this machine;
    listed: reads what an Environment lists; the rest as of ``Known``, noted from now on."""

    origin: Origin
    documents: Sequence[Document]
    files: Collection[str]
    listed: composition.LoadPath
    around: resolution.Surroundings
    rules: policy.Policy
    asked: set[str]
    answers: Answers


def from_scratch(reading: Reading, composed: Composition, before: Mapping[ResourceId, Desired]) -> Known:
    """Resolve all of it. Raises ManifestError with every problem."""
    documents, around = composed.documents, reading.around
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
    files = frozenset({*reading.files, *(one.file for one in documents), *resolved.files(), *reading.asked})
    by_file = _by_file(reading.files, documents)
    return Known(
        reading.origin,
        _wanted(composed, resolved.desired, files),
        resolved,
        Claimed(documents),
        policy.Around.of(resolved.desired.values()),
        by_file,
        _folders(by_file),
        composed.composing,
        frozenset(map(os.path.abspath, reading.asked)),
        reading.answers,
        reading.rules,
        around.remotes,
    )


def taken_over(known: Known, reading: Reading) -> bool:
    """Whether all of it is known now, with what is as it was taken over; else something is wrong, or has to be looked
    at as a whole, and ``known`` is as it was, or not whole."""
    try:
        _take_over(known, reading)
    except (Anew, ManifestError):
        return False
    return True


def _take_over(known: Known, reading: Reading) -> None:
    """Raises Anew or ManifestError."""
    if (reading.rules, reading.around.remotes) != (known.rules, known.remotes) or not _still_so(known, reading.around):
        raise Anew
    composed = _composed(known, reading)
    differing = _exchange(known, reading, composed.documents)
    by_file = _by_file(reading.files, composed.documents)
    fresh = {*by_file, *known.resolved.files(), *reading.asked}
    files = known.wanted.files - (known.by_file.keys() - by_file.keys()) | fresh
    check_again(known, reading.rules, differing)
    known.origin, known.composing = reading.origin, composed.composing
    known.by_file, known.folders = by_file, _folders(by_file)
    known.asked |= frozenset(map(os.path.abspath, reading.asked))
    known.answers |= reading.answers
    known.wanted = _wanted(composed, known.resolved.desired, files)
    known.whole = True


def _composed(known: Known, reading: Reading) -> Composition:
    """What Environments make of it."""
    if known.composing is not None:
        found = composition.compose_anew(known.composing, reading.documents, reading.listed)
    elif any(map(composition.is_environment, reading.documents)):
        found = None
    else:
        found = Composition(composition.DEFAULT_ENVIRONMENT, tuple(reading.documents))
    if found is None:
        raise Anew
    return found


def _exchange(known: Known, reading: Reading, documents: Sequence[Document]) -> set[ResourceId]:
    """Take these instead of the old ones, and resolve what hangs on those that differ; what is wanted otherwise."""
    now, new = _by_id(known, documents)
    before = dict(known.resolved.documents)
    changed = {id for id in before if id not in now} | {resolution.document_id(one) for one in new}
    policy.load(new)
    known.whole = False
    known.resolved.take({**dict.fromkeys(changed), **now}, now)
    old = [before[id] for id in changed if id in before]
    if not known.claimed.still_right(old, new, known.resolved.documents):
        raise Anew
    asking = {id for id, want in known.resolved.desired.items() if want.recipes}  # what they hold now is not known
    beside = reading.origin.doubtful(known.origin, known.resolved.files())
    return known.resolved.update(changed | (asking & now.keys()), reading.around, beside)


def _by_id(known: Known, documents: Sequence[Document]) -> tuple[dict[ResourceId, Document], list[Document]]:
    """All of them by what they are called; and those that are new or say something else, each right by itself.

    Raises Anew when one is not, or is declared twice.
    """
    before = known.resolved.documents
    same = {id(one): key for key, one in before.items()}
    fresh = [one for one in documents if id(one) not in same]
    if fresh:
        places = {(one.file, one.index): one for one in before.values()}
        new = [one for one in fresh if places.get((one.file, one.index)) != one]
    else:
        new = fresh
    if validation.check_each(new)[1]:
        raise Anew
    now = {same.get(id(one)) or resolution.document_id(one): one for one in documents}
    if len(now) != len(documents) or not now:
        raise Anew
    return now, new


def _still_so(known: Known, around: resolution.Surroundings) -> bool:
    """Whether what manifests point at looks as it did."""
    asked: Mapping[str, Callable[[str], Any]] = {"stamp": around.stamp, "node": around.node}
    try:
        return all(asked[what](path) == answer for (what, path), answer in known.answers.items())
    except OSError:
        return False


def answering(around: resolution.Surroundings, answers: Answers) -> resolution.Surroundings:
    """The same, and a note of what was answered (first)."""

    def stamp(path: str) -> str:
        found = around.stamp(path)
        answers.setdefault(("stamp", path), found)
        return found

    def node(path: str) -> str | None:
        found = around.node(path)
        answers.setdefault(("node", path), found)
        return found

    return replace(around, stamp=stamp, node=node)


def _wanted(composed: Composition, desired: Mapping[ResourceId, Desired], files: frozenset[str]) -> Wanted:
    about = (composed.prune, composed.approve, files, composed.drift, composed.names)
    return Wanted(composed.environment, desired, *about)


def _folders(files: Iterable[str]) -> dict[str, str]:
    begins = {file[: file.rfind("/") + 1] for file in files}  # of ten thousand files a few
    return {os.path.abspath(begin or "."): os.path.dirname(f"{begin}x") for begin in begins}


def _by_file(files: Iterable[str], documents: Iterable[Document]) -> dict[str, tuple[ResourceId, ...]]:
    found: dict[str, list[ResourceId]] = {file: [] for file in files}
    for one in documents:
        found.setdefault(one.file, []).append(resolution.document_id(one))
    return {file: tuple(ids) for file, ids in found.items()}


def check_again(known: Known, rules: policy.Policy, differing: Collection[ResourceId]) -> None:
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
