"""Beside the flow: our part of a text file that belongs to somebody else, between two marks. Pure.

Everything outside of the marks stays as it is, byte by byte, also when the block goes: where the line before it had no
end, the first mark says so. A file whose marks somebody broke is not guessed at.
"""

from __future__ import annotations

_ENDLESS = b" (the line before had no end)"


class BrokenMarks(ValueError):
    """There is not exactly one beginning with one end behind it."""


def with_block(text: bytes, name: str, lines: list[str]) -> bytes:
    """The text with these lines as its block: in place of the one that is there, else at the end; no lines, no block.

    Raises BrokenMarks.
    """
    before, first, _, after = _parted(text, name)
    begin, end = _marks(name)
    endless = first == begin + _ENDLESS if first else not before.endswith(b"\n") and before != b""
    if not lines:
        return before.removesuffix(b"\n") + after if endless and first else before + after
    body = b"\n".join([begin + _ENDLESS if endless else begin, *(line.encode() for line in lines), end, b""])
    return before + (b"\n" if endless and not first else b"") + body + after


def block_of(text: bytes, name: str) -> list[str]:
    """The lines of the block as it stands there; none where there is none. Raises BrokenMarks."""
    return [part.decode("utf-8", "replace") for part in _parted(text, name)[2]]


def _parted(text: bytes, name: str) -> tuple[bytes, bytes, list[bytes], bytes]:
    """What stands before the block, its first mark, its lines, and what comes after; without a block all is before."""
    begin, end = _marks(name)
    parts = text.splitlines(keepends=True)
    plain = [part.strip() for part in parts]
    marks = [number for number, part in enumerate(plain) if part in (begin, begin + _ENDLESS, end)]
    if not marks:
        return text, b"", [], b""
    if len(marks) != 2 or plain[marks[0]] == end or plain[marks[1]] != end:
        raise BrokenMarks(
            f'the lines "{begin.decode()}" and "{end.decode()}" do not stand there once each, in this order'
        )
    first, last = marks
    return b"".join(parts[:first]), plain[first], plain[first + 1 : last], b"".join(parts[last + 1 :])


def _marks(name: str) -> tuple[bytes, bytes]:
    return f"# begin {name}".encode(), f"# end {name}".encode()
