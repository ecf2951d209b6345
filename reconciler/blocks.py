"""Beside the flow: our part of a text file that belongs to somebody else, between two marks. Pure.

Everything outside of the marks stays as it is, byte by byte. A file whose marks somebody broke is not guessed at.
"""

from __future__ import annotations


class BrokenMarks(ValueError):
    """There is not exactly one beginning with one end behind it."""


def with_block(text: bytes, name: str, lines: list[str]) -> bytes:
    """The text with these lines as its block: in place of the one that is there, else at the end; no lines, no block.

    Raises BrokenMarks.
    """
    begin, end = _marks(name)
    parts = text.splitlines(keepends=True)
    found = [(number, part.strip()) for number, part in enumerate(parts) if part.strip() in (begin, end)]
    block = b"".join(line.encode() + b"\n" for line in ([begin.decode(), *lines, end.decode()] if lines else ()))
    if not found:
        if not block:
            return text
        return text + (b"" if not text or text.endswith(b"\n") else b"\n") + block
    if [mark for _, mark in found] != [begin, end]:
        raise BrokenMarks(
            f'the lines "{begin.decode()}" and "{end.decode()}" do not stand there once each, in this order'
        )
    (first, _), (last, _) = found
    return b"".join(parts[:first]) + block + b"".join(parts[last + 1 :])


def block_of(text: bytes, name: str) -> list[str]:
    """The lines of the block as it stands there; none where there is none. Raises BrokenMarks."""
    with_block(text, name, [])
    begin, end = _marks(name)
    parts = [part.strip() for part in text.splitlines()]
    if begin not in parts:
        return []
    return [part.decode("utf-8", "replace") for part in parts[parts.index(begin) + 1 : parts.index(end)]]


def _marks(name: str) -> tuple[bytes, bytes]:
    return f"# begin {name}".encode(), f"# end {name}".encode()
