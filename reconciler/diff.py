"""PLAN's eyes: which fields differ between what is wanted and what is seen. Pure.

Looks only at what the manifest mentions, or what our last apply set and the manifest no longer mentions
(three-way, as ``kubectl apply`` does). Everything else belongs to somebody else and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconciler.model import Change, Path, Spec

_ABSENT: Any = object()


def diff(wanted: Spec, seen: Spec, applied: Spec | None = None, ignore: Iterable[str] = ()) -> tuple[Change, ...]:
    """The changes that would turn ``seen`` into ``wanted``; ``ignore`` holds dotted paths left to others."""
    ignored = tuple(ignore)
    changes = _fields((), wanted, seen, applied or {})
    return tuple(change for change in changes if not is_ignored(change.field, ignored))


def is_ignored(field: str, ignored: Iterable[str]) -> bool:
    """Whether the field, or something it is part of, is left to someone else."""
    return any(field == path or field.startswith(f"{path}.") for path in ignored)


def _fields(path: Path, wanted: Spec, seen: Spec, applied: Spec) -> Iterator[Change]:
    for key, new in wanted.items():
        old = seen.get(key, _ABSENT)
        if new != old:  # what is equal as a whole has no part that differs, and none that nobody wants any more
            yield from _field((*path, key), new, old, applied.get(key, _ABSENT))
    for key, once in applied.items():
        if key not in wanted and key in seen:
            yield from _dropped((*path, key), seen[key], once)


def _field(path: Path, new: Any, old: Any, once: Any) -> Iterator[Change]:
    # The fields of a spec (cpus, config, devices …) are compared part by part even when nothing is there yet;
    # a named thing further down (one device, one disk) appears and disappears as a whole.
    if isinstance(new, Mapping) and old is _ABSENT and len(path) == 1:
        old = {}
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        yield from _fields(path, new, old, once if isinstance(once, Mapping) else {})
    elif old is _ABSENT:
        yield Change("add", path, None, new)
    else:
        yield Change("change", path, old, new)


def _dropped(path: Path, old: Any, once: Any) -> Iterator[Change]:
    if len(path) == 1 and isinstance(old, Mapping) and isinstance(once, Mapping):
        yield from _fields(path, {}, old, once)
    else:
        yield Change("remove", path, old, None)
