"""VALIDATE: what a person probably meant, guessed from the value that was refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LOOSE_SIZE = re.compile(r"\s*([1-9][0-9]*)\s*([kmgtpe])(i?b?|ib?ytes?)\s*", re.IGNORECASE | re.ASCII)
_LOOSE_DURATION = re.compile(r"\s*([0-9]+)\s*(s|m|h|d|ms)[a-z]*\s*", re.IGNORECASE | re.ASCII)
_YES_NO = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "true": "true",
    "no": "false",
    "off": "false",
    "n": "false",
    "false": "false",
}


def hint_for_type(schema: Mapping[str, Any], value: Any) -> str | None:
    """For a value of the wrong type."""
    wanted = _types(schema)
    if value is None:
        return "give it a value, or take the field out"
    if isinstance(value, str):
        return _hint_for_text(wanted, value)
    if "string" in wanted and isinstance(value, bool | int | float):
        if "octal" in str(schema.get("x-expected")):
            return f'write "{int(value):04d}"' if str(value).isdigit() else None
        if "duration" in str(schema.get("x-expected")):
            return f'a unit is missing: "{value}s"?'
        quoted = str(value).lower() if isinstance(value, bool) else str(value)
        return f'put it in quotes: "{quoted}"' if re.search(schema.get("pattern", ""), quoted) else None
    return "write it as a list: [ … ]" if wanted == {"array"} else None


def _hint_for_text(wanted: set[str], value: str) -> str | None:
    if wanted == {"boolean"} and value.lower() in _YES_NO:
        return (
            f"write {_YES_NO[value.lower()]}, without quotes"
            if value.lower() not in ("true", "false")
            else "take the quotes away"
        )
    if wanted == {"array"}:
        return f"write it as a list: [{value}]"
    if "integer" in wanted and value.strip().isdigit():
        return "take the quotes away, and zeros in front"
    return None


def hint_for_value(schema: Mapping[str, Any], value: Any) -> str | None:
    """For a value of the right type that is not allowed."""
    expected = str(schema.get("x-expected", ""))
    if not isinstance(value, str):
        return None
    if "size" in expected and (found := _LOOSE_SIZE.fullmatch(value)):
        meant = f"{found[1]}{found[2].upper()}iB"
        return f'did you mean "{meant}"?' if meant != value else "that is more than can be counted in bytes"
    if "duration" in expected and (found := _LOOSE_DURATION.fullmatch(value)):
        return f'did you mean "{found[1]}{found[2].lower()}"?'
    if "duration" in expected and value.isdigit():
        return f'a unit is missing: "{value}s"?'
    if "a-z" in expected:
        return _hint_for_name(value)
    if "lower-case hexadecimal" in expected and value != value.lower():
        return "write it in lower case"
    return None


def _hint_for_name(value: str) -> str | None:
    if not value.isascii():
        odd = next(letter for letter in value if not letter.isascii())
        return (
            f"U+{ord(odd):04X} ({odd}) only looks like a plain letter"
            if odd.isalpha()
            else f"U+{ord(odd):04X} is not allowed"
        )
    plain = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:63]
    return f'did you mean "{plain}"?' if plain and plain != value else None


def _types(schema: Mapping[str, Any]) -> set[str]:
    given = schema.get("type", ())
    return {given} if isinstance(given, str) else set(given)
