"""COMPOSE, last: ``${NAME}`` in texts → the value that the environments give it; an outer one's beats an inner one's.

Values are filled in once and never looked at again, so nothing can grow out of itself; ``$${`` is ``${`` itself.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.composition.documents import metadata_of, spec_of, subject_of
from reconciler.composition.gathering import Part
from reconciler.composition.secrets import Generator, Template
from reconciler.manifest import Document, locate
from reconciler.problems import Problem

MAX_GROWTH = 16 << 20
"""Characters that values may add to all documents together."""
_PLACE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_GUESTS = frozenset({"Container", "VirtualMachine"})

Path = tuple[str | int, ...]
Value = str | int | bool | Generator
Scope = Mapping[str, "Named"]


@dataclass(frozen=True, slots=True)
class Named:
    """A value, and where it was given."""

    value: Value
    by: Document
    place: Path


@dataclass(slots=True)
class _Filling:
    """One document being filled in. room: how many characters may still be added; secrets: texts that have secrets;
    used: which values stand in which texts."""

    document: Document
    scope: Scope
    room: int
    problems: list[Problem] = field(default_factory=list)
    secrets: dict[Path, Template] = field(default_factory=dict)
    used: dict[Path, dict[str, Named]] = field(default_factory=dict)

    def value(self, value: Any, path: Path) -> Any:
        """The value with everything in it filled in; the very same object where nothing was."""
        if isinstance(value, str):
            return self._text(value, path) if "${" in value else value
        if isinstance(value, dict):
            parts = {key: self.value(one, (*path, key)) for key, one in value.items()}
            return parts if any(parts[key] is not one for key, one in value.items()) else value
        if isinstance(value, list):
            entries = [self.value(one, (*path, index)) for index, one in enumerate(value)]
            return entries if any(new is not old for new, old in zip(entries, value, strict=True)) else value
        return value

    def _text(self, text: str, path: Path) -> Any:
        whole = _PLACE.fullmatch(text)
        parts = list(self._parts(text, path))
        self.room -= max(0, sum(len(words(one)) for one in parts) - len(text))
        if self.room < 0:
            return text  # told once, about the whole document
        if whole is not None and whole[1] and len(parts) == 1 and not isinstance(parts[0], Generator):
            return parts[0]
        if any(isinstance(one, Generator) for one in parts):
            self._secret(path, tuple(one if isinstance(one, Generator) else words(one) for one in parts))
        return "".join(map(words, parts))

    def _parts(self, text: str, path: Path) -> Iterable[Value]:
        end = 0
        for found in _PLACE.finditer(text):
            if found.start() > end:
                yield text[end : found.start()]
            end = found.end()
            name = found[1]
            if name is None:
                yield "${"
            elif name in self.scope:
                self.used.setdefault(path, {})[name] = self.scope[name]
                yield self.scope[name].value
            else:
                self._undefined(name, path)
        if end < len(text):
            yield text[end:]

    def _undefined(self, name: str, path: Path) -> None:
        import difflib

        near = difflib.get_close_matches(name, self.scope, n=1)
        known = f"defined are: {', '.join(sorted(self.scope)[:8])}" if self.scope else "define it under values"
        hint = f"did you mean ${{{near[0]}}}?" if near else f"{known}; write $${{{name}}} to mean the text itself"
        self._problem(path, f"${{{name}}}: there is no such value", hint)

    def _secret(self, path: Path, parts: Template) -> None:
        kind = self.document.data.get("kind")
        if kind in _GUESTS and len(path) == 4 and (*path[:2], path[3]) == ("spec", "files", "content"):
            self.secrets[path] = parts
            return
        name = next(one.name for one in parts if isinstance(one, Generator))
        hint = "put it into a file of a guest: files: [{path: …, content: …}]"
        self._problem(path, f"${{{name}}}: a secret can only stand in files.content", hint)

    def _problem(self, path: Path, summary: str, hint: str) -> None:
        self.problems.append(Problem(summary, locate(self.document, path), subject_of(self.document), hint=hint))


def fill_in(parts: Sequence[Part], room: int = MAX_GROWTH) -> tuple[list[Document], list[Problem], int]:
    """The documents with everything filled in (but for those that could not be), every problem, and how many of the
    ``room`` characters that may be added are left."""
    problems: list[Problem] = []
    scopes: dict[tuple[int, ...], Scope] = {}
    documents: list[Document] = []
    for part in parts:
        chain = tuple(map(id, part.chain))
        if chain not in scopes:
            scopes[chain] = _scope(part.chain, problems)
        if part.failed or not part.chain:
            documents += [] if part.failed else [part.document]  # named beside it: nobody's values are meant for it
            continue
        filling = _Filling(part.document, scopes[chain], room)
        filled = _filled(filling)
        problems += filling.problems
        if (room := filling.room) < 0:
            problems.append(_too_much(part.document))
            break
        documents += [] if filling.problems else [filled]
    return documents, list(dict.fromkeys(problems)), room


def words(value: Value) -> str:
    """A value inside of a longer text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _filled(filling: _Filling) -> Document:
    """All of it but what it is: a kind is written out."""
    before = filling.document.data
    data = {key: one if key in ("apiVersion", "kind") else filling.value(one, (key,)) for key, one in before.items()}
    if all(data[key] is one for key, one in before.items()):
        return filling.document
    return replace(filling.document, data=data, secrets=filling.secrets, values=filling.used)


def _too_much(document: Document) -> Problem:
    summary = f"values add more than {MAX_GROWTH >> 20} MiB to the documents"
    return Problem(summary, document.mark, subject_of(document), hint="put long texts into files")


def _scope(chain: Sequence[Document], problems: list[Problem]) -> Scope:
    """What the names mean below these environments, outermost first."""
    scope: dict[str, Named] = {}
    for environment in reversed(chain):
        spec = spec_of(environment)
        values, generators = spec.get("values") or {}, spec.get("generators") or {}
        for name, value in values.items():
            path: Path = ("spec", "values", name)
            scope[name] = Named(_value(environment, name, value, problems), environment, path)
        for name, source in generators.items():
            path = ("spec", "generators", name)
            if name in values:
                hint = "keep one of the two"
                problems.append(_wrong(environment, path, f"{name}: is among the values, too", hint))
            folder = os.path.dirname(environment.file)
            scope[name] = Named(Generator(name, source, folder, locate(environment, path)), environment, path)
    return scope


def _value(environment: Document, name: str, value: str | int | bool, problems: list[Problem]) -> Value:
    if not isinstance(value, str) or "${" not in value:
        return value  # of one of these types: its schema was asked
    for found in _PLACE.finditer(value):
        if found[1]:
            hint = f"write the text out; $${{{found[1]}}} means the text itself"
            problems.append(
                _wrong(environment, ("spec", "values", name), f"{name}: values hold no ${{…}} themselves", hint)
            )
            break
    return value.replace("$${", "${")


def _wrong(environment: Document, path: Path, summary: str, hint: str) -> Problem:
    return Problem(summary, locate(environment, path), f"Environment/{metadata_of(environment).get('name')}", hint=hint)
