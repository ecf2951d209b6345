"""COMPOSE: where a JSON pointer leads in a document, and how much there is; every way in which it leads nowhere."""

from __future__ import annotations

import difflib
from typing import Any

Path = tuple[str | int, ...]


class Wrong(Exception):
    """A patch cannot be applied. below: where in it the trouble is."""

    def __init__(self, summary: str, hint: str | None = None, below: Path = ()) -> None:
        super().__init__(summary)
        self.summary, self.hint, self.below = summary, hint, below


def resolve(data: Any, pointer: str, new: bool, below: Path) -> Path:
    """The path, with numbers for places in lists (``-``: the one behind the last).

    new: the last part need not be there yet. below: which field of the operation the pointer is. Raises Wrong.
    """
    if pointer and not pointer.startswith("/"):
        raise Wrong(f'"{pointer}": a JSON pointer begins with "/"', f'did you mean "/{pointer}"?', below)
    path: list[str | int] = []
    here, words = data, pointer.split("/")[1:]
    for number, word in enumerate(words):
        last = number == len(words) - 1
        part = _part(here, word.replace("~1", "/").replace("~0", "~"), new and last, pointer, below)
        path.append(part)
        if not (new and last):
            here = here[part]
    return tuple(path)


def _part(here: Any, word: str, new: bool, pointer: str, below: Path) -> str | int:
    if isinstance(here, dict):
        if word in here or new:
            return word
        near = difflib.get_close_matches(word, here, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(map(str, here)) or 'none'}"
        raise Wrong(f'{pointer}: there is no "{word}"', hint, below)
    if not isinstance(here, list):
        raise Wrong(f'{pointer}: there is nothing below, so no "{word}"', None, below)
    if word == "-" and new:
        return len(here)
    if not (word.isascii() and word.isdigit()) or (len(word) > 1 and word[0] == "0") or len(word) > 9:
        raise Wrong(
            f'{pointer}: expected a place in the list, got "{word}"', "they count from 0; - is behind the last", below
        )
    if int(word) >= len(here) + new:
        raise Wrong(f"{pointer}: the list has {len(here)} entries", "they count from 0", below)
    return int(word)


def copied(value: Any) -> Any:
    """A copy that shares no mapping and no list with it, nor with itself: what an alias repeats is there twice."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    return [copied(one) for one in value] if isinstance(value, list) else value


def count(value: Any) -> int:
    """How many values there are, mappings and lists counted too."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, below))


def depth(value: Any) -> int:
    """How many levels of mappings and lists."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if below is None else 1 + max(map(depth, below), default=0)
