"""VALIDATE, the explaining one: why a document was refused, every reason, in words that help.

From the same schema files as accept.py, by jsonschema, which is imported only when something was refused. No reference
leads outside: the registry is closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry, Resource

from reconciler import schema
from reconciler.validation.findings import MAX_FINDINGS, Finding, Notes, Path, listed, value_words
from reconciler.validation.hints import hint_for_type, hint_for_value


@dataclass(frozen=True, slots=True)
class _Refusal:
    """One keyword of schema ``name`` that did not take a value. path: to the value; trail: to the keyword."""

    name: str
    path: Path
    keyword: str
    argument: Any
    value: Any
    schema: Mapping[str, Any]
    trail: tuple[str | int, ...]

    @classmethod
    def of(cls, error: ValidationError, name: str) -> _Refusal:
        """What jsonschema says, with the reference followed."""
        found: Any = error.schema
        inner = schema.resolve(found) if isinstance(found, Mapping) else {}
        path, trail = tuple(error.absolute_path), tuple(error.absolute_schema_path)
        return cls(name, path, str(error.validator), error.validator_value, error.instance, inner, trail)


def explain(data: Mapping[str, Any]) -> list[Finding]:
    """Everything that the schema of its kind does not allow; empty when it allows all."""
    if (unknown := _header(data)) is not None:
        return unknown
    return explain_as(str(data["kind"]), data)


def explain_as(name: str, data: Mapping[str, Any]) -> list[Finding]:
    """The same by the schema of that name (a kind, or ``policy``)."""
    notes = Notes()
    for error in islice(_validator(name).iter_errors(data), MAX_FINDINGS):
        refusal = _Refusal.of(error, name)
        _WORDS.get(refusal.keyword, _other)(notes, refusal)
    return notes.findings


def _header(data: Mapping[str, Any]) -> list[Finding] | None:
    """Without a kind that we know there is no schema to go by."""
    notes, kind = Notes(), data.get("kind")
    if isinstance(kind, str) and kind in schema.kinds():
        return None
    if "kind" not in data:
        notes.note((), 'missing "kind"', f"kinds are: {', '.join(schema.kinds())}")
    elif not isinstance(kind, str):
        notes.note(("kind",), f'expected a kind such as "Container", got {value_words(kind)}')
    else:
        near = schema.near(kind, schema.kinds())
        hint = f'did you mean "{near}"?' if near else f"kinds are: {', '.join(schema.kinds())}"
        notes.note(("kind",), f'there is no kind "{kind}"', hint)
    if (version := data.get("apiVersion")) != schema.API_VERSION:
        expected = f'expected "{schema.API_VERSION}", got'
        if "apiVersion" in data:
            notes.note(("apiVersion",), f"{expected} {value_words(version)}")
        else:
            notes.note((), f"apiVersion: {expected} none")
    return notes.findings


@cache
def _validator(name: str) -> Validator:
    validator: Any = extend(Draft202012Validator, {"pattern": _pattern_keyword})  # type: ignore[no-untyped-call]
    made: Validator = validator(schema.load(name), registry=_registry())
    return made


@cache
def _registry() -> Registry[Any]:
    common: Resource[Any] = Resource.from_contents(schema.load("common"))
    registry: Registry[Any] = Registry()
    return registry.with_resources([("common.json", common)])


def _pattern_keyword(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """``pattern`` as jsonschema_rs has it: "$" is the very end, where Python's re lets a newline follow."""
    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)


Words = Callable[[Notes, _Refusal], None]


def _unknown(notes: Notes, refusal: _Refusal) -> None:
    known = refusal.schema.get("properties", {})
    for extra in islice((one for one in refusal.value if one not in known), MAX_FINDINGS):
        near, deeper = schema.near(extra, known), _deeper(known, extra)
        hint = f'did you mean "{near}"?' if near else f"fields here are: {', '.join(known)}" if known else None
        hint = f"it belongs into {deeper}: indent it below that" if deeper else hint
        notes.note_name(refusal.path, extra, f'unknown field "{extra}"', hint)


def _deeper(known: Mapping[str, Any], field: str) -> str | None:
    """Which of the mappings here has that field: it was written one level too far out."""
    return next((name for name in ("spec", "metadata") if name in known and field in _fields_of(known[name])), None)


def _fields_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema.resolve(part).get("properties", {})
    return found


def _required(notes: Notes, refusal: _Refusal) -> None:
    for missing in (one for one in refusal.argument if one not in refusal.value):
        expected = _expected(refusal, missing)
        notes.note(refusal.path, f'missing "{missing}"', f"{missing}: {expected}" if expected else None)


def _dependent(notes: Notes, refusal: _Refusal) -> None:
    for key, needed in refusal.argument.items():
        missing = [one for one in needed if one not in refusal.value]
        if key in refusal.value and missing:
            notes.note((*refusal.path, key), f"needs {listed(missing)} beside it", at_name=True)


def _one_of(notes: Notes, refusal: _Refusal) -> None:
    if not isinstance(refusal.value, Mapping):
        return  # its type is wrong, and said so
    branches = [branch["required"] for branch in refusal.argument]
    choices = listed((" with ".join(branch) for branch in branches), "or")
    given = [one for branch in branches for one in branch if one in refusal.value]
    got = listed(dict.fromkeys(given)) or "none of them"
    how = "exactly one" if refusal.keyword == "oneOf" else "one"
    notes.note(refusal.path, f"expected {how} of {choices}, got {got}")


def _type(notes: Notes, refusal: _Refusal) -> None:
    found = refusal.schema
    expected = found.get("x-expected") or _with_article(schema.type_name(found))
    if "enum" in found:
        expected = f"one of {', '.join(found['enum'])}"
    summary = f"expected {expected}, got {value_words(refusal.value)}"
    if refusal.path == ("spec",):
        summary = f"spec: {summary}"
    notes.note(refusal.path, summary, hint_for_type(found, refusal.value))


def _enum(notes: Notes, refusal: _Refusal) -> None:
    choices = refusal.argument
    if not isinstance(refusal.value, str):
        return  # its type is wrong, and said so
    expected = f'"{choices[0]}"' if len(choices) == 1 else f"one of {', '.join(choices)}"
    near = schema.near(refusal.value, choices)
    hint = f'did you mean "{near}"?' if near else None
    notes.note(refusal.path, f"expected {expected}, got {value_words(refusal.value)}", hint)


def _value(notes: Notes, refusal: _Refusal) -> None:
    found = refusal.schema
    expected = found.get("x-expected") or _BOUNDS.get(refusal.keyword, "{}").format(refusal.argument)
    if "propertyNames" in refusal.trail:
        notes.note_name(refusal.path, refusal.value, f"{value_words(refusal.value)} is not {expected}")
        return
    notes.note(
        refusal.path, f"expected {expected}, got {value_words(refusal.value)}", hint_for_value(found, refusal.value)
    )


_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "a text that is not empty",
    "maxLength": "at most {} characters",
    "pattern": "a text that matches {}",
}


def _count(notes: Notes, refusal: _Refusal) -> None:
    what = "fields" if "Properties" in refusal.keyword else "entries"
    if refusal.keyword.startswith("min"):
        notes.note(refusal.path, f"expected at least one of its {what}, got none")
    else:
        notes.note(refusal.path, f"expected at most {refusal.argument} {what}, got {len(refusal.value)}")


def _twice(notes: Notes, refusal: _Refusal) -> None:
    seen: list[Any] = []
    for index, one in enumerate(refusal.value):
        if one in seen:
            notes.note((*refusal.path, index), f"{value_words(one)} stands twice", "keep one of them")
        seen.append(one)


def _other(notes: Notes, refusal: _Refusal) -> None:
    """A field that may not stand beside another (``false`` in the schema): the schema says why."""
    notes.note(refusal.path, _message(refusal) or "cannot stand here", at_name=True)


_WORDS: dict[str, Words] = {
    "additionalProperties": _unknown,
    "required": _required,
    "dependentRequired": _dependent,
    "oneOf": _one_of,
    "anyOf": _one_of,
    "type": _type,
    "enum": _enum,
    "uniqueItems": _twice,
    **dict.fromkeys(("pattern", "minLength", "maxLength", "minimum", "maximum"), _value),
    **dict.fromkeys(("minItems", "maxItems", "minProperties", "maxProperties"), _count),
}


def _schemas_on_the_way(refusal: _Refusal) -> Iterator[Mapping[str, Any]]:
    """The schemas from the document's own down to the one that refused."""
    here: Any = schema.load(refusal.name)
    for part in refusal.trail:
        if isinstance(here, Mapping):
            here = schema.resolve(here)
            yield here
            here = here if part == "$ref" else here.get(str(part), {})
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part]


def _message(refusal: _Refusal) -> str | None:
    """The ``x-message`` nearest above the place in the schema that refused."""
    found = [str(one["x-message"]) for one in _schemas_on_the_way(refusal) if "x-message" in one]
    return found[-1] if found else None


def _expected(refusal: _Refusal, name: str) -> str | None:
    """What the field would have to be; it may be described further up than where it is demanded."""
    found = [one["properties"][name] for one in _schemas_on_the_way(refusal) if name in one.get("properties", {})]
    return schema.resolve(found[-1]).get("x-expected") if found else None


def _with_article(words: str) -> str:
    return words if words[0] == "t" and words.startswith("true") else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
