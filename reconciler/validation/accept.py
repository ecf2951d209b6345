"""VALIDATE, the fast one: says yes to what the schemas allow, in some 6 µs a document, and only yes or no.

jsonschema_rs compiles one kind's schema when the first document of that kind comes; its regular expressions are linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from reconciler import schema

_COMMON = "json-schema:///common.json"


def accepts(data: Mapping[str, Any]) -> bool:
    """Whether the schema of the document's kind takes it; False for what is no kind."""
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in schema.kinds():
        return False
    return validator(kind)(data)


@cache
def validator(name: str) -> Callable[[Any], bool]:
    """The compiled schema of a kind, or ``policy``."""
    from jsonschema_rs import Draft202012Validator, RegexOptions

    return Draft202012Validator(dict(schema.load(name)), registry=_registry(), pattern_options=RegexOptions()).is_valid


@cache
def _registry() -> Any:
    from jsonschema_rs import Registry

    return Registry([(_COMMON, dict(schema.load("common")))])
