"""VALIDATE: documents → every problem, never only the first; each with its place, what was expected, and a hint.

A fast validator accepts (accept.py), an explaining one explains what it refused (explain.py), from the same schemas;
what schemas cannot say is in semantics/ (of one document) and together.py (of several). The only home of jsonschema.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.manifest import Document
from reconciler.problems import ManifestError, Problem
from reconciler.validation.checks import check_each, check_environments
from reconciler.validation.loading import Loaded, load, load_manifests, load_parts
from reconciler.validation.parsed import Parsed
from reconciler.validation.together import check_set

__all__ = [
    "Loaded",
    "Parsed",
    "check",
    "check_each",
    "check_environments",
    "check_set",
    "load",
    "load_manifests",
    "load_parts",
    "validate",
]


def check(documents: Iterable[Document]) -> None:
    """Raises ManifestError with every problem, when there is any."""
    if problems := validate(documents):
        raise ManifestError(problems)


def validate(documents: Iterable[Document]) -> list[Problem]:
    """Every problem of these documents, each by itself and all of them together."""
    sound, problems = check_each(list(documents))
    return problems + check_set(sound)
