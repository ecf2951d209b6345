"""LOAD: what an unquoted word means: YAML 1.2's core schema, and nothing beyond it.

``no``, ``on``, ``22:22``, ``1_000``, ``2026-01-02`` and ``52:54:00:44:49:56`` are texts. One deliberate departure: a
number with a leading zero (``0755``, ``012``) stays the text that a person sees, where 1.1 reads octal and 1.2 decimal.
"""

from __future__ import annotations

import re
from typing import Any

WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
MAYBE_NUMBER = frozenset("0123456789+-.")
"""What a number can begin with: anything else needs no closer look."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_LIMIT = 2**63
_DIGITS = 20


def number(word: str) -> Any:
    """The number that an unquoted word stands for, or the word itself. ValueError for numbers that we do not take."""
    if _INTEGER.fullmatch(word):
        return _bounded(word, 10)
    if _FLOAT.fullmatch(word):
        return _finite(word)
    if _OTHER_BASE.fullmatch(word):
        return _bounded(word[2:], 8 if word[1] == "o" else 16)
    if _NOT_FINITE.fullmatch(word):
        raise ValueError(f"{word} is not a number that can be used here")
    return word


def _bounded(digits: str, base: int) -> int:
    if len(digits) > _DIGITS or abs(value := int(digits, base)) >= _LIMIT:
        raise ValueError(f"the number {_short(digits)} is too big")
    return value


def _finite(word: str) -> float:
    value = float(word) if len(word) <= 400 else float("inf")
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {_short(word)} is too big")
    return value


def _short(word: str) -> str:
    return word if len(word) <= 24 else f"{word[:21]}…"
