"""COMPOSE, first: follow what Environments list, and patch what came of it, innermost first."""

from __future__ import annotations

import os.path
from dataclasses import dataclass, field

from reconciler.composition.documents import LoadPath, is_environment, metadata_of, spec_of, subject_of
from reconciler.manifest import Document, locate
from reconciler.problems import ManifestError, Problem

Aim = tuple[str, int, int]
"""One patch: the file and index of its Environment, and its own index."""

MAX_LEVELS = 32
"""Environments inside of environments; nobody needs more."""
_CHANGING = ("patches", "values", "generators")


@dataclass(slots=True)
class Part:
    """One document on its way. chain: the Environments that lead to it, outermost first; failed: no use to go on;
    aimed: the patches that are aimed at it; written: as it stands in its file."""

    document: Document
    chain: tuple[Document, ...]
    failed: bool = False
    aimed: tuple[Aim, ...] = ()
    written: Document = field(init=False)

    def __post_init__(self) -> None:
        self.written = self.document

    @property
    def changing(self) -> list[Document]:
        """Those of its environments that change what they list."""
        return [one for one in self.chain if any(spec_of(one).get(name) for name in _CHANGING)]


@dataclass(slots=True)
class Gathering:
    """taken: every document (file, index) that is in, as a Part; open: the environments that are being followed;
    grown: how many values patches have added so far; patching: whether patches are applied on the way;
    followed: every Environment that was followed; folders: as documents name them → absolute."""

    load: LoadPath
    patching: bool = True
    parts: list[Part] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    taken: dict[tuple[str, int], Part] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    grown: int = 0
    followed: list[Document] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)

    def follow(self, environment: Document, chain: tuple[Document, ...]) -> None:
        """Load what this Environment lists, and patch it; a document counts once, however many roads lead to it."""
        spec, here = spec_of(environment), os.path.abspath(environment.file)
        begin = len(self.parts)
        self.followed.append(environment)
        self.open.add(here)
        folder = os.path.dirname(environment.file)
        for index, given in enumerate(spec.get("resources") or ()):
            try:
                loaded = self.load(os.path.normpath(os.path.join(folder, given)))
            except ManifestError as error:
                self.problems += [_pointed(one, environment, index) for one in error.problems]
                continue
            for document in loaded:
                self._take(document, environment, index, (*chain, environment))
        self.open.discard(here)
        if self.patching and spec.get("patches"):
            from reconciler.composition.patching import patch  # only who patches pays for the libraries

            patch(self, environment, self.parts[begin:])

    def _absolute(self, file: str) -> str:
        """Asked for ten thousand files of a few folders."""
        folder, slash, name = file.rpartition("/")
        if folder not in self.folders:
            self.folders[folder] = os.path.join(os.path.abspath(folder + slash), "")
        return self.folders[folder] + name

    def _take(self, document: Document, environment: Document, index: int, chain: tuple[Document, ...]) -> None:
        place = (self._absolute(document.file), document.index)
        part = Part(document, chain)
        if is_environment(document) and place[0] in self.open:
            # Whoever writes "." means "everything here", and would get nothing: with prune, that deletes everything.
            problem = Problem(
                f"this leads back to {document.file}, which is being read already",
                hint="name files, folders without an environment.yaml, or other environments",
            )
            self.problems.append(_pointed(problem, environment, index))
        elif (first := self.taken.setdefault(place, part)) is not part:
            if first.changing != part.changing:
                self.problems.append(_pointed(_two_roads(document, first), environment, index))
        elif not is_environment(document):
            self.parts.append(part)
        elif len(chain) >= MAX_LEVELS:
            problem = Problem(f"more than {MAX_LEVELS} environments inside of each other", hint="use fewer levels")
            self.problems.append(_pointed(problem, environment, index))
        else:
            self.follow(document, chain)


def _two_roads(document: Document, first: Part) -> Problem:
    """Which patches and values would count?"""
    roads = " > ".join(str(metadata_of(one).get("name")) for one in first.chain)
    return Problem(
        f"{document.file} is in already through other patches or values ({roads})",
        hint="list it once, in the environment that all of them share",
    )


def _pointed(problem: Problem, environment: Document, index: int) -> Problem:
    """A problem without a place of its own stands where the environment names the file."""
    if problem.mark is not None:
        return problem
    mark = locate(environment, ("spec", "resources", index))
    subject = problem.subject or subject_of(environment)
    return Problem(f"resources: {problem.summary}", mark, subject, problem.detail, problem.hint)
