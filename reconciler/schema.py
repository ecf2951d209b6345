"""Beside the flow: what the schemas say of kinds and fields, for resolution, ``explain``, hints and coverage tests.

``schemas/*.json`` is the source of truth; it is read here, once, and nothing is validated here (see validation).
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

Schema = Mapping[str, Any]

API_VERSION = "reconciler/v1"
COMMON = "common.json"
_KINDS = (
    "Environment",
    "Host",
    "Image",
    "VirtualMachine",
    "Container",
    "Network",
    "Disk",
    "Volume",
    "Share",
    "Device",
    "PortForward",
    "Profile",
    "StoragePool",
    "Project",
)


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a field list. path: dotted from the document's top; type: as people say it (``size``, ``list``)."""

    name: str
    path: str
    type: str
    title: str
    required: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that the schema says of a kind or field.

    type:     "text", "integer", "true or false", "list", "mapping", joined with "or"
    default:  None when there is none; has_default tells it from a default of null (which no field has)
    choices:  the values of an enumeration
    fields:   the fields below, in the schema's order (of a list: those of its entries)
    """

    kind: str
    path: str
    title: str
    type: str
    description: str
    required: bool
    default: Any = None
    has_default: bool = False
    choices: tuple[Any, ...] = ()
    examples: tuple[Any, ...] = ()
    expected: str = ""
    fields: tuple[Field, ...] = ()


def kinds() -> tuple[str, ...]:
    """Every kind, in the order of the manual."""
    return _KINDS


@cache
def text(file: str) -> bytes:
    """One schema file as it is, such as ``common.json``. (importlib.resources would cost 6 ms at every start.)"""
    with open(os.path.join(os.path.dirname(__file__), "schemas", file), "rb") as opened:
        return opened.read()


@cache
def load(name: str) -> Schema:
    """The schema of a kind (or ``policy``), references as they stand. KeyError for what is no kind."""
    if name not in (*_KINDS, "policy", "common"):
        raise KeyError(name)
    found: Schema = json.loads(text(f"{name}.json"))
    return found


@cache
def defaults(kind: str) -> Schema:
    """The defaults of the fields directly below ``spec``; those further down apply only where their parent is given.

    KeyError for what is no kind.
    """
    found = {
        name: field["default"] for name, field in _properties(child(load(kind), "spec")).items() if "default" in field
    }
    return MappingProxyType(found)


@cache
def fields(kind: str) -> tuple[str, ...]:
    """Every dotted field path of the kind: ``spec.nics.model``; entries of a list have no segment of their own."""
    return tuple(path for path, _field in walk(kind))


def walk(kind: str) -> Iterator[tuple[str, Schema]]:
    """Every field path with its schema (references followed), parents first."""
    pending: list[tuple[str, Schema]] = [("", load(kind))]
    while pending:
        path, schema = pending.pop(0)
        for name, field in _properties(schema).items():
            below = f"{path}.{name}" if path else name
            yield below, field
            pending.append((below, field))


def resolve(schema: Schema) -> Schema:
    """The same schema with its ``$ref`` followed; what stands beside the reference wins."""
    while "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**_target(schema["$ref"]), **beside}
    return schema


def child(schema: Schema, name: str) -> Schema:
    """The schema of a field, references followed. KeyError when there is no such field."""
    return _properties(schema)[name]


def explain(kind: str, path: Sequence[str] = ()) -> Explanation:
    """What the schema says of ``kind`` or of the field at ``path``; ``spec`` may be left out of the path.

    KeyError with the part that is not known (see ``near`` for what was meant).
    """
    schema, trail, required = resolve(load(kind)), [], True
    parts = list(path)
    if parts and parts[0] not in _properties(schema):
        parts.insert(0, "spec")
    for part in parts:
        parent = _entries(schema)
        if not _properties(schema) and "additionalProperties" in schema:
            break  # a map whose keys are somebody else's words: what there is to say is said of the map
        schema = child(schema, part)
        required = part in parent.get("required", ())
        trail.append(part)
    below = tuple(_fields(schema, trail))
    return Explanation(
        kind=kind,
        path=".".join(trail),
        title=str(schema.get("title", "")),
        type=type_name(schema),
        description=str(schema.get("description", "")),
        required=required,
        default=schema.get("default"),
        has_default="default" in schema,
        choices=tuple(schema.get("enum", ())),
        examples=tuple(schema.get("examples", ())),
        expected=str(schema.get("x-expected", "")),
        fields=below,
    )


def names(kind: str, path: Sequence[str | int] = ()) -> tuple[str, ...]:
    """The fields that may stand at that place; empty for raw maps and values."""
    schema = resolve(load(kind))
    for part in path:
        if isinstance(part, int):
            continue
        found = _properties(schema).get(part)
        if found is None:
            return ()
        schema = found
    return tuple(_properties(schema))


def near(word: str, words: Iterable[str]) -> str | None:
    """The one that was probably meant, whatever its case; None when nothing is close."""
    import difflib

    by_lower = {one.lower(): one for one in words}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def type_name(schema: Schema) -> str:
    """The type in people's words."""
    schema = resolve(schema)
    given = schema.get("type", ())
    listed = [given] if isinstance(given, str) else list(given)
    return " or ".join(_WORDS[one] for one in listed) or "anything"


_WORDS = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}


def _fields(schema: Schema, trail: Sequence[str]) -> Iterator[Field]:
    required = _entries(schema).get("required", ())
    for name, field in _properties(schema).items():
        yield Field(
            name, ".".join([*trail, name]), type_name(field), str(resolve(field).get("title", "")), name in required
        )


def _entries(schema: Schema) -> Schema:
    """The mapping that has the fields: of a list, its entries."""
    schema = resolve(schema)
    while "items" in schema:
        schema = resolve(schema["items"])
    return schema


def _properties(schema: Schema) -> dict[str, Schema]:
    found = _entries(schema).get("properties", {})
    return {name: resolve(field) for name, field in found.items()}


@cache
def _target(reference: str) -> Schema:
    """What ``common.json#/$defs/size`` points at; its own references are made to name the file, too."""
    file, _, pointer = reference.partition("#/")
    found: Any = load((file or COMMON).removesuffix(".json"))
    for part in pointer.split("/"):
        found = found[part]
    return dict(found)
