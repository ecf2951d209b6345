"""VIEW, lowest shelf: styled lines, and the escaping that keeps manifests from driving somebody's terminal.

A line is a sequence of spans (text, style). Whatever comes from outside goes through ``clean`` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TextIO

Span = tuple[str, str]
Line = tuple[Span, ...]

STYLES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "good": "32",
    "warn": "33",
    "bad": "31",
    "note": "36",
    "harm": "35",
}
"""Style names and their ANSI parameters (SGR)."""


def line(*parts: str | Span) -> Line:
    """A line of plain texts and (text, style) spans."""
    return tuple((part, "") if isinstance(part, str) else part for part in parts)


def clean(text: str) -> str:
    """The text on one line, every character that is not printable (controls, direction marks …) written out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _written_out(char) for char in text)


def clean_block(text: str) -> list[str]:
    """Several lines, each of them clean; a tab becomes spaces."""
    return [clean(part.expandtabs()) for part in text.rstrip("\n").splitlines()]


def _written_out(char: str) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    if char in named:
        return named[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def render(lines: Iterable[Line], colour: bool) -> str:
    """The lines as text, each ended by a newline; trailing blanks go."""
    return "".join(_render_line(spans, colour) + "\n" for spans in lines)


def _render_line(spans: Sequence[Span], colour: bool) -> str:
    if not colour:
        return "".join(text for text, _ in spans).rstrip()
    return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in spans).rstrip()


def has_colour(stream: TextIO, environment: dict[str, str]) -> bool:
    """Colour only on a terminal that can, and only when nobody said NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def columns(rows: Sequence[Sequence[Span]], indent: int = 0, gap: int = 2) -> list[Line]:
    """Rows as aligned columns; the last column is not padded."""
    widths: list[int] = []
    for row in rows:
        for index, (text, _) in enumerate(row):
            if index == len(widths):
                widths.append(0)
            widths[index] = max(widths[index], len(text))
    return [_aligned(row, widths, indent, gap) for row in rows]


def _aligned(row: Sequence[Span], widths: Sequence[int], indent: int, gap: int) -> Line:
    spans: list[Span] = [(" " * indent, "")]
    for index, (text, style) in enumerate(row):
        spans.append((text, style))
        if index < len(row) - 1:
            spans.append((" " * (widths[index] - len(text) + gap), ""))
    return tuple(spans)


def table(head: Sequence[str], rows: Sequence[Sequence[str | Span]]) -> list[Line]:
    """A table with a head line, as ``kubectl get`` prints it."""
    styled = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
    return columns([[(title, "bold") for title in head], *styled])
