"""VIEW: JSON-ready data as block-style YAML; all but plain words as JSON writes it, so that nothing is misread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from reconciler.model import Json

Path = tuple[str | int, ...]
Note = Callable[[Path], str]
"""A comment about the value at a path; empty for none."""


def to_yaml(document: Json, note: Note = lambda _path: "") -> str:
    """The document, ended by a newline; behind every plain value what there is to note about it."""
    if _is_leaf(document):
        return _scalar(document) + "\n"
    return "".join(f"{text}\n" for text in _block(document, "", (), note))


def leaves(value: Json, path: Path = ()) -> Iterator[Path]:
    """The paths of all plain (and empty) values."""
    if _is_leaf(value):
        yield path
        return
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from leaves(part, (*path, key))


def _block(value: Json, indent: str, path: Path, note: Note) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _entry(f"{indent}{_key(str(key))}:", part, f"{indent}  ", (*path, key), note)
    else:
        for index, part in enumerate(value):
            yield from _item(part, indent, (*path, index), note)


def _entry(head: str, value: Json, indent: str, path: Path, note: Note) -> Iterator[str]:
    if _is_leaf(value):
        yield f"{head} {_noted(value, path, note)}"
    else:
        yield head
        yield from _block(value, indent, path, note)


def _item(value: Json, indent: str, path: Path, note: Note) -> Iterator[str]:
    """One entry of a list; the first line of what it holds stands beside its dash."""
    if _is_leaf(value):
        yield f"{indent}- {_noted(value, path, note)}"
        return
    for number, text in enumerate(_block(value, f"{indent}  ", path, note)):
        yield f"{indent}- {text[len(indent) + 2 :]}" if number == 0 else text


def _noted(value: Json, path: Path, note: Note) -> str:
    text, words = _scalar(value), note(path)
    return f"{text}  # {words}" if words else text


def _is_leaf(value: Json) -> bool:
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return not value
    return True


_NOT_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})  # to some reader of YAML 1.1


def _key(key: str) -> str:
    plain = key.isascii() and key[:1].isalpha() and key.replace("-", "").replace("_", "").isalnum()
    return key if plain and key.lower() not in _NOT_WORDS else _quoted(key)


def _is_word(text: str) -> bool:
    """Begins like a name or a path, holds nothing that YAML gives a meaning to."""
    plain = text.isascii() and (text[:1].isalpha() or text[:1] == "/") and text.lower() not in _NOT_WORDS
    return plain and all(char.isalnum() or char in "-_./" for char in text)


def _scalar(value: Json) -> str:
    """JSON is YAML; words that no YAML could misread stand bare; what a terminal could act on is escaped."""
    if isinstance(value, str) and _is_word(value):
        return value
    return _quoted(value)


def _quoted(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() else json.dumps(value, default=str)
