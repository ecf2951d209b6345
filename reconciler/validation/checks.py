"""VALIDATE, one document after the other: the schema first, then what schemas cannot say."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.manifest import Document
from reconciler.problems import Problem
from reconciler.validation import semantics
from reconciler.validation.accept import accepts
from reconciler.validation.findings import Finding, problems_of


def check_each(documents: Sequence[Document]) -> tuple[list[Document], list[Problem]]:
    """The documents that are right by themselves, and every problem of the others."""
    sound: list[Document] = []
    problems: list[Problem] = []
    for document in documents:
        found = problems_in(document)
        problems += found
        if not found:
            sound.append(document)
    return sound, problems


def check_environments(documents: Sequence[Document]) -> tuple[list[Document], list[Problem]]:
    """All but the Environments that are wrong, and their problems; of the others nothing is asked yet."""
    environments = [document for document in documents if document.data.get("kind") == "Environment"]
    if not environments:
        return list(documents), []
    sound, problems = check_each(environments)
    wrong = set(map(id, environments)) - set(map(id, sound))
    return [one for one in documents if id(one) not in wrong], problems


def is_right(document: Document) -> bool:
    """The same as ``not problems_in``, without a word about why."""
    return accepts(document.data) and not semantics.findings(document)


def problems_in(document: Document) -> list[Problem]:
    """Every problem of one document by itself."""
    found: list[Finding] = []
    if not accepts(document.data):
        from reconciler.validation.explain import explain

        found = explain(document.data)
    found += semantics.findings(document, found)
    return problems_of(document, found) if found else []
