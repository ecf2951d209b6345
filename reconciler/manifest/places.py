"""LOAD: where things stand. Reads the kept text once more, only when a place is asked for.

Works on libyaml's events like parsing does, without building anything: one pass answers any number of questions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
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

Path = tuple[str | int, ...]
Spot = tuple[int, int]
"""Line and column, from 1."""

_OPENING = (MappingStartEvent, SequenceStartEvent)
_CLOSING = (MappingEndEvent, SequenceEndEvent)


@dataclass(frozen=True, slots=True)
class Place:
    """key: of the field's name (None in lists and at the top); value: of what it holds; leaf: a plain value."""

    key: Spot | None
    value: Spot
    leaf: bool

    @property
    def best(self) -> Spot:
        """Where a person looks: at a plain value itself, at the name of a mapping or list."""
        return self.value if self.leaf or self.key is None else self.key


@dataclass(slots=True)
class _Wanted:
    """The asked-for paths as a tree; ``path`` is set where one of them ends."""

    path: Path | None = None
    below: dict[str | int, _Wanted] = field(default_factory=dict)


@dataclass(slots=True)
class _Level:
    """One open mapping (key: the name just read, else None) or list (key: the index of the next entry)."""

    mapping: bool
    wanted: _Wanted | None
    key: str | int | None
    key_spot: Spot | None = None


def find(text: str, index: int, paths: Collection[Path]) -> dict[Path, Place]:
    """The place of each path in the index-th document; of a path that is not there, that of the nearest parent."""
    top = _Wanted()
    for path in paths:
        here = top
        for part in path:
            here = here.below.setdefault(part, _Wanted())
        here.path = path
    found: dict[Path, Place] = {}
    _scan(event_source(text), index, top, found)
    return {path: _nearest(found, path) for path in paths}


def _nearest(found: dict[Path, Place], path: Path) -> Place:
    while path and path not in found:
        path = path[:-1]
    return found.get(path, Place(None, (1, 1), True))


def _scan(take: Callable[[], Any], index: int, top: _Wanted, found: dict[Path, Place]) -> None:
    """Walk the events of the document; note the place of everything on the way to something wanted."""
    _skip(take, index)
    levels: list[_Level] = []
    trail: list[str | int] = []
    while True:
        try:
            event = take()
        except yaml.YAMLError:
            return
        kind = event.__class__
        if kind in (DocumentEndEvent, StreamEndEvent):
            return
        if kind in _CLOSING:
            _leave(levels, trail)
            continue
        level = levels[-1] if levels else None
        if level is not None and level.mapping and level.key is None:
            level.key, level.key_spot = getattr(event, "value", ""), _spot(event)
            continue
        wanted = top if level is None else _below(level)
        if level is not None and level.key is not None:
            trail.append(level.key)
        if wanted is not None:
            found[tuple(trail)] = Place(level.key_spot if level else None, _spot(event), kind not in _OPENING)
        if kind in _OPENING:
            levels.append(_Level(kind is MappingStartEvent, wanted, None if kind is MappingStartEvent else 0))
        else:
            _step(levels, trail)


def _below(level: _Level) -> _Wanted | None:
    if level.wanted is None or level.key is None:
        return None
    return level.wanted.below.get(level.key)


def _leave(levels: list[_Level], trail: list[str | int]) -> None:
    """A mapping or list is closed: its parent goes on to the next key or entry."""
    levels.pop()
    _step(levels, trail)


def _step(levels: list[_Level], trail: list[str | int]) -> None:
    if not levels:
        return
    trail.pop()
    level = levels[-1]
    level.key, level.key_spot = (None, None) if isinstance(level.key, str) else ((level.key or 0) + 1, None)


def _skip(take: Callable[[], Any], index: int) -> None:
    """Go to just behind the start of the index-th document."""
    starts = -1
    while starts < index:
        event = take()
        starts += event.__class__ is DocumentStartEvent
        if event.__class__ is StreamEndEvent:
            return


def first_places(text: str, duplicates: Container[int]) -> dict[int, Spot]:
    """For every duplicate key (by the index of its first character): where the same mapping has it first."""
    found: dict[int, Spot] = {}
    take = event_source(text)
    stack: list[dict[str, Spot] | None] = []
    waiting: list[bool] = []
    try:
        while (event := take()).__class__ is not StreamEndEvent:
            kind = event.__class__
            if kind in (StreamStartEvent, DocumentStartEvent, DocumentEndEvent):
                continue
            if kind in _CLOSING:
                stack.pop()
                waiting.pop()
            elif waiting and waiting[-1] and kind is ScalarEvent:
                _note_key(event, stack[-1], duplicates, found)
                waiting[-1] = False
                continue
            if waiting and stack[-1] is not None and kind not in _OPENING:
                waiting[-1] = True
            if kind in _OPENING:
                stack.append({} if kind is MappingStartEvent else None)
                waiting.append(kind is MappingStartEvent)
    except yaml.YAMLError:
        pass
    return found


def _note_key(event: Any, keys: dict[str, Spot] | None, duplicates: Container[int], found: dict[int, Spot]) -> None:
    if keys is None:
        return
    if event.start_mark.index in duplicates:
        found[event.start_mark.index] = keys[event.value]
    keys.setdefault(event.value, _spot(event))


def _spot(event: Any) -> Spot:
    return event.start_mark.line + 1, event.start_mark.column + 1
