"""LOAD: one pass over libyaml's events that is guard and constructor at once: text → plain dicts, lists and scalars.

The guard stands before construction: PyYAML's own loader crashes the process on deep nesting and multiplies aliases.
Places (line, column) cost time, so the events' marks are looked at only when something is wrong; see places.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from sys import intern
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from reconciler.manifest.events import event_source
from reconciler.manifest.scalars import MAYBE_NUMBER, WORDS, number
from reconciler.manifest.wrongs import Wrong, syntax

MAX_DEPTH = 64
MAX_NODES = 200_000
"""Events of one file: a scalar is one, a mapping or list two; what aliases repeat counts again."""
MAX_REPEATED = 1 << 20
"""Characters that aliases of one file may repeat."""
MAX_DOCUMENTS = 10_000
MAX_WRONGS = 100

_KEY: Any = object()
"""Stands where a mapping waits for its next key; None stands in lists."""
_ODD_KEYS = frozenset(("<<", ""))
_QUOTE_IT = "put it in quotes to make it a text"


@dataclass(frozen=True, slots=True)
class Tree:
    """One document of a text: its data, where that begins, and whether a float is in it (which few fields take)."""

    data: Any
    line: int
    column: int
    floats: bool


def parse(text: str) -> tuple[list[Tree], list[Wrong]]:
    """Every document of the text, and everything that is wrong with it; after a syntax error nothing more is read."""
    builder = _Builder(text)
    trees: list[Tree] = []
    try:
        trees.extend(builder.documents())
    except Wrong as wrong:
        builder.wrongs.append(wrong)
    except yaml.YAMLError as error:
        builder.wrongs.append(syntax(error, text))
    if not trees and not builder.wrongs:
        builder.wrongs.append(Wrong(1, 1, "holds no document", "a manifest begins with apiVersion: reconciler/v1"))
    return trees, builder.wrongs + _duplicates(text, builder.duplicates)


def _duplicates(text: str, found: dict[int, tuple[str, Any]]) -> list[Wrong]:
    """Both places of every key that stands twice; found in one more pass, because it is rare."""
    if not found:
        return []
    from reconciler.manifest.places import first_places

    firsts = first_places(text, found)
    return [
        Wrong(
            mark.line + 1,
            mark.column + 1,
            f'"{key}" stands here for the second time; the first is at line {firsts[index][0]}, '
            f"column {firsts[index][1]}",
            "keep one of them",
        )
        for index, (key, mark) in found.items()
    ]


class _Builder:
    """One text being read. count: events so far; extra: nodes that aliases added; repeated: characters they added."""

    def __init__(self, text: str) -> None:
        self.take = event_source(text)
        self.counter = iter(range(MAX_NODES))
        self.extra = 0
        self.repeated = 0
        self.floats = False
        self.wrongs: list[Wrong] = []
        self.duplicates: dict[int, tuple[str, Any]] = {}
        self.anchors: dict[str, tuple[Any, int, int] | None] = {}
        self.unfinished: list[tuple[int, str, int, int, int, int]] = []

    def documents(self) -> Iterator[Tree]:
        """Each document in turn."""
        begun = 0
        while (event := self.take()).__class__ is not StreamEndEvent:
            if event.__class__ is DocumentStartEvent:
                begun += 1
                self._check_directives(event)
                if begun > MAX_DOCUMENTS:
                    raise _wrong(
                        event, f"more than {MAX_DOCUMENTS} documents in one file", "split it into several files"
                    )
            elif event.__class__ not in (StreamStartEvent, DocumentEndEvent):
                self.anchors, self.unfinished, self.floats = {}, [], False
                start = event.start_mark
                yield Tree(self._root(event), start.line + 1, start.column + 1, self.floats)

    def _root(self, event: Any) -> Any:
        """The document that begins with this event."""
        if event.__class__ is MappingStartEvent or event.__class__ is SequenceStartEvent:
            here: Any = {} if event.__class__ is MappingStartEvent else []
            if event.anchor is not None or event.tag is not None:
                self._open_properties(event, here, 0, 0)
            return self._build(here)
        return self._repeat(event, 0) if event.__class__ is AliasEvent else self._scalar(event, 0)

    def _build(self, here: Any) -> Any:  # noqa: PLR0912  calls would cost a third of the speed
        """The hot loop, in one piece for speed: fills ``here`` until it is closed."""
        take, key = self.take, _KEY if here.__class__ is dict else None
        stack: list[tuple[Any, Any]] = []
        for count in self.counter:
            event = take()
            kind = event.__class__
            if kind is ScalarEvent:
                value = event.value
                if key is _KEY:
                    if value in here or event.tag is not None or event.anchor is not None or value in _ODD_KEYS:
                        self._odd_key(event, here, count)
                    key = intern(value)  # thousands of manifests have the same few fields
                    continue
                if event.tag is not None or event.anchor is not None or not event.implicit[0]:
                    value = self._scalar(event, count)
                elif value in WORDS:
                    value = WORDS[value]
                elif value[0] in MAYBE_NUMBER:
                    value = self._number(event)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                value = {} if kind is MappingStartEvent else []
                if key is _KEY or len(stack) >= MAX_DEPTH - 1:
                    self._refuse(event, key)
                stack.append((here, key))
                if event.anchor is not None or event.tag is not None:
                    self._open_properties(event, value, count, len(stack))
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                if self.unfinished:
                    self._close_anchor(event, here, count, len(stack))
                if not stack:
                    return here
                value = here
                here, key = stack.pop()
            else:
                value = self._repeat(event, count, key is _KEY)
            if kind is MappingStartEvent:
                here, key = value, _KEY
            elif kind is SequenceStartEvent:
                here, key = value, None
            elif key is None:
                here.append(value)
            else:
                here[key] = value
                key = _KEY
        raise _too_many(event)

    def _scalar(self, event: Any, count: int) -> Any:
        """A scalar that is quoted, tagged or anchored, or stands alone."""
        value: Any = event.value
        if event.tag is not None:
            self._refuse_tag(event)
        elif event.implicit[0]:
            value = WORDS[value] if value in WORDS else self._number(event) if value[0] in MAYBE_NUMBER else value
        elif "\0" in value:
            self._note(event, "a NUL character cannot stand in a text", "put binary contents into a file of their own")
        if event.anchor is not None:
            self._check_anchor(event)
            self.anchors[event.anchor] = (value, 1, event.end_mark.index - event.start_mark.index)
        return value

    def _number(self, event: Any) -> Any:
        """What an unquoted word that begins like a number stands for."""
        try:
            value = number(event.value)
        except ValueError as error:
            self._note(event, str(error), _QUOTE_IT)
            return event.value
        if value.__class__ is float:
            self.floats = True
        return value

    def _odd_key(self, event: Any, here: dict[str, Any], count: int) -> None:
        """Note what is not right with a key."""
        key, start = event.value, event.start_mark
        if key in here and len(self.duplicates) < MAX_WRONGS:
            self.duplicates[start.index] = (key, start)
        if event.tag is not None:
            self._refuse_tag(event)
        elif event.anchor is not None:
            self._note(event, "a key cannot have an anchor", "anchor the value instead")
        elif key == "<<" and event.implicit[0]:
            self._note(event, 'merge keys ("<<") are not taken', "write the fields out, or repeat a value as *alias")
        elif not key and event.implicit[0]:
            self._note(event, "expected a field name before the colon, got nothing", "write its name")

    def _open_properties(self, event: Any, value: Any, count: int, depth: int) -> None:
        """Tag and anchor of a mapping or list that begins."""
        if event.tag is not None:
            self._refuse_tag(event)
        if event.anchor is not None:
            self._check_anchor(event)
            self.anchors[event.anchor] = None
            start = event.start_mark.index
            self.unfinished.append((depth, event.anchor, count + self.extra, start, self.repeated, id(value)))

    def _close_anchor(self, event: Any, value: Any, count: int, depth: int) -> None:
        """An anchored mapping or list may be repeated once it is whole."""
        level, name, nodes, start, repeated, identity = self.unfinished[-1]
        if level == depth and identity == id(value):
            self.unfinished.pop()
            size = event.end_mark.index - start + self.repeated - repeated
            self.anchors[name] = (value, count + self.extra - nodes + 1, size)

    def _repeat(self, event: Any, count: int, as_key: bool = False) -> Any:
        """What an alias stands for; the same object again, which nobody changes."""
        if as_key:
            raise _wrong(event, "an alias cannot be a field name", "write the name out")
        if event.anchor not in self.anchors:
            raise _wrong(event, f"there is no anchor &{event.anchor} before this alias", _anchor_hint(self.anchors))
        if (known := self.anchors[event.anchor]) is None:
            raise _wrong(event, f"the alias *{event.anchor} stands inside of what it repeats", "write the value out")
        value, nodes, size = known
        self.extra += nodes
        self.repeated += size
        if count + self.extra > MAX_NODES or self.repeated > MAX_REPEATED:
            raise _wrong(event, "aliases repeat too much", "write less with aliases, or several files")
        return value

    def _refuse(self, event: Any, key: Any) -> None:
        """A mapping or list that may not begin here."""
        if key is _KEY:
            raise _wrong(event, "a mapping or list cannot be a field name", "a field name is a text")
        raise _wrong(event, f"nested deeper than {MAX_DEPTH} levels", "no manifest needs that")

    def _refuse_tag(self, event: Any) -> None:
        shown = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._note(event, f'tags such as "{shown}" are not taken', "leave the tag out; quotes make a text")

    def _check_anchor(self, event: Any) -> None:
        if event.anchor in self.anchors:
            self._note(event, f"the anchor &{event.anchor} is already taken", "give each anchor a name of its own")

    def _check_directives(self, event: Any) -> None:
        if event.version not in (None, (1, 2)):
            raise _wrong(event, f"YAML {event.version[0]}.{event.version[1]} is not taken", "manifests are YAML 1.2")
        if event.tags:
            raise _wrong(event, "%TAG is not taken", "manifests need no tags")

    def _note(self, event: Any, summary: str, hint: str) -> None:
        self.wrongs.append(wrong := _wrong(event, summary, hint))
        if len(self.wrongs) >= MAX_WRONGS:
            raise wrong


def _too_many(event: Any) -> Wrong:
    return _wrong(event, f"more than {MAX_NODES} values in one file", "split it into several files")


def _wrong(event: Any, summary: str, hint: str) -> Wrong:
    return Wrong(event.start_mark.line + 1, event.start_mark.column + 1, summary, hint)


def _anchor_hint(anchors: Any) -> str:
    return f"anchors so far: {', '.join(sorted(anchors)[:8])}" if anchors else 'in quotes, "*…" is a text'
