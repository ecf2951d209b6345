"""VIEW: what the schemas say of a kind or field, as ``explain`` shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from reconciler.model import Json
from reconciler.schema import Explanation
from reconciler.view.text import Line, Span, columns, line
from reconciler.view.yaml import to_yaml

_WIDTH = 100


def kind_lines(kinds: list[Explanation]) -> Iterator[Line]:
    """Every kind with its first sentence."""
    yield from columns([[(one.kind, "bold"), (first_sentence(one.description), "")] for one in kinds])


def explanation_lines(one: Explanation) -> Iterator[Line]:
    """Everything about one kind or field."""
    name = f"{one.kind}.{one.path}" if one.path else one.kind
    required = ", required" if one.required and one.path else ""
    yield line((name, "bold"), f"  <{one.type}{required}>")
    for text in wrapped(one.description):
        yield line("  ", text)
    yield from _facts(one)
    if one.examples:
        yield line(("Example", "bold"))
        yield from (line("  ", text) for text in _example(one).splitlines())
    if one.fields:
        yield line(("Fields", "bold"))
        yield from columns([_field_row(one, index) for index in range(len(one.fields))], indent=2)


def _facts(one: Explanation) -> Iterator[Line]:
    if one.has_default:
        yield line(("Default  ", "bold"), scalar(one.default))
    if one.choices:
        yield line(("One of   ", "bold"), ", ".join(scalar(choice) for choice in one.choices))
    elif one.expected:
        yield line(("Expected ", "bold"), one.expected)


def _field_row(one: Explanation, index: int) -> list[Span]:
    field = one.fields[index]
    return [
        (field.name, "bold"),
        (f"<{field.type}{', required' if field.required else ''}>", "dim"),
        (field.title, ""),
    ]


def _example(one: Explanation) -> str:
    """The first example, under the field's own name."""
    example = one.examples[0]
    return to_yaml({one.path.rpartition(".")[2]: example} if one.path else example)


def scalar(value: Json) -> str:
    """A default or choice as people would write it."""
    return value if isinstance(value, str) else json.dumps(value)


def first_sentence(text: str) -> str:
    """Up to the first full stop, in one line."""
    return text.partition(". ")[0].rstrip(".")


def wrapped(text: str) -> list[str]:
    """The description in lines that fit."""
    import textwrap

    return textwrap.wrap(text, _WIDTH)
