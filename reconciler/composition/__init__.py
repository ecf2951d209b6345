"""COMPOSE: an environment.yaml and what it lists → one set of documents. Pure: a loader that comes in reads the files.

gathering follows ``resources`` and applies each environment's patches on the way out, so the innermost come first;
values then fills in ``${NAME}``. Without an environment.yaml the documents stand for themselves, in ``default``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.composition.documents import LoadPath, is_environment, subject_of
from reconciler.composition.secrets import Generator, Template, recipe, template
from reconciler.manifest import Document, locate
from reconciler.problems import ManifestError, Problem

if TYPE_CHECKING:
    from reconciler.composition.again import Composing

__all__ = [
    "DEFAULT_ENVIRONMENT",
    "Composition",
    "Generator",
    "LoadPath",
    "Template",
    "compose",
    "compose_anew",
    "is_environment",
    "recipe",
    "template",
]

DEFAULT_ENVIRONMENT = "default"

Check = Callable[[Sequence[Document]], Iterable[Problem]]
"""Everything that is wrong with documents as they have become."""


@dataclass(frozen=True, slots=True)
class Composition:
    """What is to be made so: the documents (Environments are used up) and what the outermost Environment says.

    approve: {restart, replace, delete} → may happen unattended
    drift:   what watch mode does about somebody else's changes: heal | report; a resource's driftPolicy beats it
    names:   whether the names of guests are kept on this host
    composing: composes single documents of it again; None: as they are written
    """

    environment: str
    documents: tuple[Document, ...]
    prune: bool = False
    approve: Mapping[str, bool] = field(default_factory=dict)
    drift: str = "heal"
    names: bool = False
    composing: Composing | None = field(default=None, compare=False, repr=False)


def compose(documents: Iterable[Document], load: LoadPath, check: Check = lambda _documents: ()) -> Composition:
    """Follow every Environment's resources, patch, fill in. Raises ManifestError with every problem.

    load:  gives documents as they were written; its Environments are right by themselves
    check: asked about what came of it, but for documents that could not be composed
    """
    given = tuple(documents)
    outer = [one for one in given if is_environment(one)]
    if not outer:
        return _checked(Composition(DEFAULT_ENVIRONMENT, given), check, [])
    return _followed(outer, [one for one in given if not is_environment(one)], load, check)


def _followed(outer: Sequence[Document], beside: Iterable[Document], load: LoadPath, check: Check) -> Composition:
    """The same where there are Environments. Imports here: most sets of manifests have none."""
    from reconciler.composition.again import Composing
    from reconciler.composition.gathering import Gathering, Part
    from reconciler.composition.values import fill_in

    gathering = Gathering(load)
    if len(outer) > 1:
        names = ", ".join(one.file for one in outer)
        gathering.problems.append(Problem(f"several environments at once: {names}", hint="apply one after the other"))
    gathering.parts += [Part(one, ()) for one in beside]
    for one in outer:
        gathering.follow(one, ())
    problems = list(gathering.problems)
    composed, unfilled, room = fill_in(gathering.parts)
    problems += unfilled
    if not problems and not composed:
        raise ManifestError(_nothing(outer[0]))
    composing = None if problems else Composing.of(gathering, composed, room)
    return _checked(_composition(outer[0], composed, composing), check, problems)


def compose_anew(before: Composing, documents: Sequence[Document], load: LoadPath) -> Composition | None:
    """The same as ``compose``, unchecked, with what is as it was taken over; None: it takes all of it."""
    found = before.anew(documents, load)
    return None if found is None else _composition(*found)


def _composition(environment: Document, documents: Sequence[Document], composing: Composing | None) -> Composition:
    spec = environment.data.get("spec") or {}
    name, approve = environment.data["metadata"]["name"], dict(spec.get("approve") or {})
    prune, drift = bool(spec.get("prune")), spec.get("drift", "heal")
    return Composition(name, tuple(documents), prune, approve, drift, bool(spec.get("names")), composing)


def _checked(composition: Composition, check: Check, problems: list[Problem]) -> Composition:
    problems += check(composition.documents)
    if problems:
        raise ManifestError(problems)
    return composition


def _nothing(environment: Document) -> Problem:
    """An empty set is never taken for "delete everything"."""
    return Problem(
        "the environment comes to no resources at all",
        locate(environment, ("spec", "resources")),
        subject_of(environment),
        hint="name some under resources; to take everything away, use: reconciler delete",
    )
