"""COMPOSE: secrets, which are never in a document: it says ``<secret NAME>``, and beside it what makes the text.

What a text is made of (a Template) is turned into bytes in the secrets room, when somebody needs the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.problems import Mark

Json = Any


@dataclass(frozen=True, slots=True)
class Generator:
    """Where one secret comes from. source: as in environment.yaml: file | environment | command (and input), trim;
    base: that file's folder, where paths begin."""

    name: str
    source: Mapping[str, Json]
    base: str
    mark: Mark | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """As everybody is shown it."""
        return f"<secret {self.name}>"


Template = tuple[str | Generator, ...]
"""A text with secrets in it, piece by piece."""


def recipe(parts: Template) -> list[Json]:
    """As plain data, for a saved plan: how to make it again, and nothing of what comes out."""
    return [
        one if isinstance(one, str) else {"name": one.name, "from": dict(one.source), "base": one.base} for one in parts
    ]


def template(recipe: Sequence[Json]) -> Template:
    """And back. KeyError, TypeError for what is none."""
    return tuple(
        one if isinstance(one, str) else Generator(one["name"], dict(one["from"]), one["base"]) for one in recipe
    )
