"""COMPOSE: an environment.yaml and what it lists → one set of documents. Pure: a loader that comes in reads the files.

Without an environment.yaml the documents stand for themselves, in the environment named ``default``.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.manifest import Document, locate
from reconciler.problems import ManifestError, Problem

DEFAULT_ENVIRONMENT = "default"

LoadPath = Callable[[str], Sequence[Document]]
"""Reads one file or folder (as it stands, or its environment.yaml) into documents; raises ManifestError."""

_LATER = ("patches", "values")


@dataclass(frozen=True, slots=True)
class Composition:
    """What is to be made so: the documents (Environments are used up) and what the outermost Environment says.

    approve: {restart, replace, delete} → may happen unattended
    """

    environment: str
    documents: tuple[Document, ...]
    prune: bool = False
    approve: Mapping[str, bool] = field(default_factory=dict)


@dataclass(slots=True)
class _Gathering:
    """taken: every document (file, index) that is in; open: the environments that are being followed right now."""

    load: LoadPath
    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    taken: set[tuple[str, int]] = field(default_factory=set)
    open: set[str] = field(default_factory=set)


def compose(documents: Iterable[Document], load: LoadPath) -> Composition:
    """Follow every Environment's resources. Raises ManifestError with every problem, those of the loader too."""
    given = tuple(documents)
    outer = [one for one in given if is_environment(one)]
    gathering = _Gathering(load)
    if len(outer) > 1:
        names = ", ".join(one.file for one in outer)
        gathering.problems.append(Problem(f"several environments at once: {names}", hint="apply one after the other"))
    gathering.documents += [one for one in given if not is_environment(one)]
    for one in outer:
        _follow(gathering, one)
    if gathering.problems:
        raise ManifestError(gathering.problems)
    if not outer:
        return Composition(DEFAULT_ENVIRONMENT, tuple(gathering.documents))
    spec = outer[0].data.get("spec") or {}
    name = outer[0].data["metadata"]["name"]
    if not gathering.documents:
        raise ManifestError(_nothing(outer[0]))
    return Composition(name, tuple(gathering.documents), bool(spec.get("prune")), dict(spec.get("approve") or {}))


def is_environment(document: Document) -> bool:
    """Whether it says what belongs together, rather than what is wanted."""
    return bool(document.data.get("kind") == "Environment")


def _follow(gathering: _Gathering, environment: Document) -> None:
    """Load what this Environment lists; each document counts once, however many roads lead to it."""
    spec: Mapping[str, Any] = environment.data.get("spec") or {}
    here = os.path.abspath(environment.file)
    gathering.open.add(here)
    _refuse_later(gathering, environment, spec)
    folder = os.path.dirname(environment.file)
    for index, given in enumerate(spec.get("resources") or ()):
        try:
            loaded = gathering.load(os.path.normpath(os.path.join(folder, given)))
        except ManifestError as error:
            gathering.problems += [_pointed(one, environment, index) for one in error.problems]
            continue
        for document in loaded:
            _take(gathering, document, environment, index)
    gathering.open.discard(here)


def _take(gathering: _Gathering, document: Document, environment: Document, index: int) -> None:
    place = (os.path.abspath(document.file), document.index)
    if is_environment(document) and place[0] in gathering.open:
        # Whoever writes "." means "everything here", and would get nothing: with prune, that deletes everything.
        problem = Problem(
            f"this leads back to {document.file}, which is being read already",
            hint="name files, folders without an environment.yaml, or other environments",
        )
        gathering.problems.append(_pointed(problem, environment, index))
    elif place not in gathering.taken:
        gathering.taken.add(place)
        if is_environment(document):
            _follow(gathering, document)
        else:
            gathering.documents.append(document)


def _pointed(problem: Problem, environment: Document, index: int) -> Problem:
    """A problem without a place of its own stands where the environment names the file."""
    if problem.mark is not None:
        return problem
    mark = locate(environment, ("spec", "resources", index))
    subject = problem.subject or _subject(environment)
    return Problem(f"resources: {problem.summary}", mark, subject, problem.detail, problem.hint)


def _subject(environment: Document) -> str:
    return f"Environment/{environment.data['metadata']['name']}"


def _nothing(environment: Document) -> Problem:
    """An empty set is never taken for "delete everything"."""
    return Problem(
        "the environment comes to no resources at all",
        locate(environment, ("spec", "resources")),
        _subject(environment),
        hint="name some under resources; to take everything away, use: reconciler delete",
    )


def _refuse_later(gathering: _Gathering, environment: Document, spec: Mapping[str, Any]) -> None:
    for name in _LATER:
        if spec.get(name):
            subject = _subject(environment)
            mark = locate(environment, ("spec", name))
            gathering.problems.append(
                Problem(f"{name}: accepted by the schema, but not carried out by this version", mark, subject)
            )
