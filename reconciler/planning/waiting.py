"""PLAN: what waits. ``updatePolicy`` says the worst that may happen; what does more is left for later.

The backend is then handed a Desired whose ``spec`` is what is to be so now, and whose ``later`` is what the guest's
next start brings. What has to be replaced is in neither: a start does not make it so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from reconciler.effects import worst
from reconciler.model import Change, Desired, Effect, Path, Power, Spec, Step, Verb

_LIMITS = {"live": Effect.LIVE, "restart": Effect.RESTART, "replace": Effect.REPLACE}
_NAMED = frozenset({"disks", "nics", "shares", "devices", "forwards"})
_WORDS = {Effect.RESTART: "waits for a restart", Effect.REPLACE: "waits to be replaced"}

Changes = tuple[Change, ...]


def limit(want: Desired) -> Effect | None:
    """The worst that its ``updatePolicy`` lets happen; None when it says nothing."""
    return _LIMITS.get(str(want.spec.get("updatePolicy")))


def split(
    want: Desired, judged: Changes, power: Power | None, allow: Effect | None, unattended: Effect | None = None
) -> tuple[Changes, Changes]:
    """What is done now, and what waits. A thing (one disk, one share) changes as a whole or not at all."""
    stated = limit(want) or unattended
    if stated is None:
        return judged, ()
    limits = [stated, *([allow] if allow else []), *([Effect.RESTART] if _is_down(want, judged, power) else [])]
    most = max(effect.severity for effect in limits)
    # That it goes down because the manifest says so is no surprise, and waiting would not end.
    things = {_thing(one.path) for one in judged if one.effect.severity > most and one.effect is not Effect.STOP}
    waiting = [one for one in judged if _thing(one.path) in things]
    now = tuple(one for one in judged if _thing(one.path) not in things)
    return now, tuple(_waiting(one, worst(_of_thing(one, waiting)), who_says(want)) for one in waiting)


def given(want: Desired, waiting: Iterable[Change]) -> Desired:
    """What the backend is handed while these wait; the very same when nothing does."""
    left = tuple(waiting)
    if not left:
        return want
    spec = _without(want.spec, left)
    whole = want.spec if want.later is None else want.later
    later = _without(whole, (change for change in left if change.effect is not Effect.RESTART))
    return replace(want, spec=spec, later=later if later != spec else None)


def told(step: Step, waiting: Changes) -> Step:
    """The step with what waits; nothing waits for a step that is held."""
    if not waiting or step.verb is Verb.HOLD:
        return step
    reason = "as declared, but for what waits" if step.verb is Verb.NOOP else step.reason
    return replace(step, waiting=(*step.waiting, *waiting), reason=reason)


def _is_down(want: Desired, judged: Changes, power: Power | None) -> bool:
    """A guest that has crashed, or that the manifest stops, has no downtime to fear from what a running one refuses."""
    stops = any(change.path == ("power",) and change.effect is Effect.STOP for change in judged)
    return power is Power.ERROR or (stops and want.spec.get("power") == Power.STOPPED)


def _thing(path: Path) -> Path:
    """What changes as a whole: one entry of a named list, all of ``boot``, else the very field."""
    if path[0] in _NAMED:
        return path[:2]
    return path[:1] if path[0] == "boot" else path


def _of_thing(change: Change, waiting: Iterable[Change]) -> list[Change]:
    return [one for one in waiting if _thing(one.path) == _thing(change.path)]


def who_says(want: Desired) -> str:
    """What it is that makes it wait."""
    stated = want.spec.get("updatePolicy")
    return f"updatePolicy: {stated}" if stated else "unattended watching"


def _waiting(change: Change, effect: Effect, why: str) -> Change:
    words = f"{_WORDS[effect]} ({why})"
    return replace(change, effect=effect, note=f"{words}; {change.note}" if change.note else words)


def _without(spec: Spec, waiting: Iterable[Change]) -> dict[str, Any]:
    """The spec with the waiting fields as they are now."""
    kept = dict(spec)
    for change in waiting:
        kept = _put_back(kept, change.path, change)
    return kept


def _put_back(spec: Spec, path: Path, change: Change) -> dict[str, Any]:
    head, *rest = path
    changed = dict(spec)
    if rest:
        below = changed.get(head)
        changed[head] = _put_back(below if isinstance(below, Mapping) else {}, tuple(rest), change)
        if not changed[head]:
            del changed[head]
    elif change.op == "add":
        changed.pop(head, None)
    else:
        changed[head] = change.old
    return changed
