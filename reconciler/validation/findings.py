"""VALIDATE: what is found wrong with one document, before it has a place: a path, a summary, a hint.

Places cost another pass over the text, so they are looked up for all findings of a document together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler import schema
from reconciler.manifest import Document, locate_all
from reconciler.problems import Problem

Path = tuple[str | int, ...]
MAX_FINDINGS = 100
"""Of one document; nobody reads more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. at_name: the field's name is wrong rather than its value."""

    path: Path
    summary: str
    hint: str | None = None
    at_name: bool = False


@dataclass(slots=True)
class Notes:
    """Collects findings about one document; ``note`` puts the field's path before the summary."""

    findings: list[Finding] = field(default_factory=list)

    def note(self, path: Sequence[str | int], summary: str, hint: str | None = None, at_name: bool = False) -> None:
        """Something is wrong at ``path`` (from the document's top)."""
        shown = field_path(path)
        self.findings.append(Finding(tuple(path), f"{shown}: {summary}" if shown else summary, hint, at_name))

    def note_name(self, path: Sequence[str | int], name: str, summary: str, hint: str | None = None) -> None:
        """The field ``name`` itself, below ``path``, is wrong."""
        shown = field_path(path)
        self.findings.append(Finding((*path, name), f"{shown}: {summary}" if shown else summary, hint, True))


def problems_of(document: Document, findings: Iterable[Finding]) -> list[Problem]:
    """Findings with their places, in the order of the text, each once."""
    each = list(dict.fromkeys(findings))[:MAX_FINDINGS]
    names = locate_all(document, [one.path for one in each if one.at_name], names=True)
    values = locate_all(document, [one.path for one in each if not one.at_name])
    subject, kind = subject_of(document.data), document.data.get("kind")
    found = [
        Problem(
            one.summary,
            (names if one.at_name else values)[one.path],
            subject,
            hint=one.hint or _where_to_read(kind, one.path),
        )
        for one in each
    ]
    return sorted(found, key=lambda problem: (problem.mark.line, problem.mark.column) if problem.mark else (0, 0))


def _where_to_read(kind: Any, path: Path) -> str:
    """The part of the manual that says what may stand there."""
    known: list[str] = []
    if kind not in schema.kinds():
        return "reconciler explain"
    for name in (part for part in path if isinstance(part, str)):
        if name not in schema.names(kind, known):
            break
        known.append(name)
    shown = known[1:] if known[:1] == ["spec"] else known
    return f"reconciler explain {'.'.join([kind, *shown])}"


def subject_of(data: Any) -> str | None:
    """``Kind/name`` as far as the document says so."""
    kind = data.get("kind")
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(kind, str):
        return None
    return f"{kind}/{name}" if isinstance(name, str) and name else kind


def field_path(path: Sequence[str | int]) -> str:
    """``spec`` left out: ``nics[0].mac``, ``metadata.name``."""
    shown = ""
    for part in path[1:] if path and path[0] == "spec" else path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


def value_words(value: Any) -> str:
    """A value as it is shown in a message: short, and what it is when it is no plain value."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}…"'
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else str(value)


def listed(words: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    each = list(words)
    return each[0] if len(each) == 1 else f"{', '.join(each[:-1])} {last} {each[-1]}" if each else ""
