"""Ours or not: the mark that each object bears, so that nothing else needs to be remembered.

LXD objects hold free ``user.*`` keys in their config; an image alias has only its description. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.model import Spec

PREFIX = "user.reconciler."
ENVIRONMENT = PREFIX + "environment"
ID = PREFIX + "id"
APPLIED = PREFIX + "applied"
PENDING = PREFIX + "pending"
IMAGE = PREFIX + "image"
OWED = PREFIX + "owed"
LATER = PREFIX + "later"

_RENAMING = "rename to "
_ALIAS_INTRODUCTION = "managed by reconciler: "


@dataclass(frozen=True, slots=True)
class Mark:
    """What our last apply left on an object.

    applied: the spec that it set; pending: what of it is not finished
    image:   what the guest was created from: the ``image`` of its spec, with the ``fingerprint`` in LXD
    owed:    what its next start has to do besides: "create", for a guest that was created stopped (its commands, its
             account …); "home", when the account, time zone or locale changed while it was
    later:   the whole wanted spec, while parts of it wait for the next start
    """

    environment: str
    id: str
    applied: Spec | None = None
    pending: str | None = None
    image: Mapping[str, Any] | None = None
    owed: str | None = None
    later: Spec | None = None


def read_mark(config: Mapping[str, str], id: str) -> Mark | None:
    """The mark in an object's config; None when it bears none, or that of another object (``lxc copy`` copies it)."""
    environment = config.get(ENVIRONMENT)
    if environment is None:
        return None
    pending = config.get(PENDING) or None
    if config.get(ID) != id and pending != renaming(id):
        return None
    applied, image, later = (_json(config.get(key)) for key in (APPLIED, IMAGE, LATER))
    return Mark(environment, id, applied, pending, image, config.get(OWED) or None, later)


def unfinished(mark: Mark, up: bool) -> str | None:
    """What an apply has to finish. up: it runs, so that what its start owes is due, whoever started it."""
    return mark.pending or (mark.owed if up else None)


def mark_config(mark: Mark) -> dict[str, str]:
    """The config keys that make up a mark; empty values (which LXD takes as "remove") are left out."""
    config = {ENVIRONMENT: mark.environment, ID: mark.id}
    if mark.applied is not None:
        config[APPLIED] = dump(mark.applied)
    if mark.pending:
        config[PENDING] = mark.pending
    if mark.image is not None:
        config[IMAGE] = dump(mark.image)
    if mark.owed:
        config[OWED] = mark.owed
    if mark.later is not None:
        config[LATER] = dump(mark.later)
    return config


def renaming(id: str) -> str:
    """What ``pending`` says while an object is being renamed to that id."""
    return _RENAMING + id


def alias_description(mark: Mark) -> str:
    """A mark as an image alias's description: readable for people, and for us."""
    return _ALIAS_INTRODUCTION + dump({"environment": mark.environment, "id": mark.id, "applied": mark.applied})


def read_alias_description(description: str, id: str) -> Mark | None:
    """The mark in an alias's description; None when there is none, or that of another alias."""
    if not description.startswith(_ALIAS_INTRODUCTION):
        return None
    found = _json(description.removeprefix(_ALIAS_INTRODUCTION))
    if found is None or found.get("id") != id or not isinstance(found.get("environment"), str):
        return None
    applied = found.get("applied")
    return Mark(found["environment"], id, applied if isinstance(applied, dict) else None)


def dump(value: Any) -> str:
    """Compact JSON that does not depend on the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _json(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None  # somebody edited it: as if we had recorded nothing
    return value if isinstance(value, dict) else None
