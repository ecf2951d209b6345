"""What ``get``, ``describe`` and ``history`` learn from the watches that run: what only they know, such as since when.

What is there is always looked at afresh, and what a watch says counts only while it is about the very same: it may have
been stopped, wait for another command, or not have heard yet.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from reconciler.model import Condition, Desired, Observed, ResourceId, lxd_backend
from reconciler.paths import runtime_dir
from reconciler.problems import ReconcilerError
from reconciler.view.documents import SYNCED
from reconciler.view.text import Line, clean, line

if TYPE_CHECKING:
    from reconciler.cli.lookup import Seen
    from reconciler.watch.client import Answered

Key = tuple[str, ResourceId]
Told = Mapping[str, Any]
"""One resource as a watch tells of it."""

_PATIENCE = 5.0
"""Seconds that a watch has to answer."""
_LOOK = 1.0
"""Seconds that it has to look again at what has changed."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the watches said. looked: when each resource was last looked at by one, as text; missing: what is declared,
    is not there, and why."""

    conditions: Mapping[Key, tuple[Condition, ...]]
    looked: Mapping[Key, str] = field(default_factory=dict)
    missing: Mapping[str, Condition] = field(default_factory=dict)


def ask(environment: str | None) -> list[Answered]:
    """The watches that run, of this environment or of all, and how they are."""
    folder = runtime_dir() / "watch"
    if not any(folder.glob("*.sock")):
        return []  # the usual case pays for nothing
    from reconciler.watch.client import everybody

    found = everybody(folder, _PATIENCE)
    return [one for one in found if one.status is None or environment in (None, one.status["environment"])]


def hosts(watches: Sequence[Answered]) -> list[Desired]:
    """The Hosts that are declared where somebody watches: what is there is looked at, too."""
    told = [(name, spec) for watch in watches if watch.status for name, spec in watch.status["hosts"].items()]
    return [Desired(ResourceId("Host", name), lxd_backend(name), spec) for name, spec in told]


def known(watches: Sequence[Answered], seen: Seen, ours: Mapping[Key, tuple[Condition, ...]]) -> Known:
    """What we saw ourselves (the conditions of some of all that is there), and what the watches add to it."""
    there, dark = seen.resources, {name for name in seen.backends if seen.world.problem(name) is not None}
    conditions, looked, missing = dict(ours), dict[Key, str](), dict[str, Condition]()
    for watch in watches:
        if watch.status is None:
            continue
        environment = watch.status["environment"]
        told: dict[Key, Told] = {
            (one["backend"], ResourceId.parse(one["id"])): one for one in watch.status["resources"]
        }
        mine = {(one.backend, one.id): one for one in there if one.environment == environment}
        shown = [key for key in mine if key in ours and key in told]
        moved = {key for key in shown if _has_moved(mine[key], mine, told)}
        fresh = _looked_again(watch, [one for key in moved for one in _bases(mine[key], mine)]) if moved else {}
        for key in shown:
            one = fresh.get(key, told[key])
            said = [_changed(one)] if key in moved and key not in fresh else list(_said(one))
            conditions[key] = _together(ours[key], said)
            if one["lookedAt"]:
                looked[key] = one["lookedAt"]
        gone = [key for key in told.keys() - mine.keys() if key[0] in seen.backends and key[0] not in dark]
        missing |= {str(key[1]): why for key in gone if (why := _why_missing(told[key]))}
    return Known(conditions, looked, missing)


def lines(watches: Sequence[Answered]) -> Iterator[Line]:
    """Who watches, how long ago they looked at everything, and what people should know before they believe it."""
    for watch in watches:
        if (status := watch.status) is None:
            yield line((clean(f"The watch (process {watch.pid}) does not answer: what it knows is not shown."), "harm"))
            continue
        words = f"{status['environment']} is watched by process {status['pid']}"
        words += f", which last looked at everything at {status['lastResync']}" if status["lastResync"] else ""
        words += f"; {status['state']}: {status['why']}" if status["why"] else ""
        words += f"; it waits for {status['yieldsTo']}" if status["yieldsTo"] else ""
        words += "; the newest manifests are not used: see reconciler status" if status["problems"] else ""
        yield line((clean(words), "dim"))


def missing_lines(missing: Mapping[str, Condition]) -> Iterator[Line]:
    """What is declared and not there."""
    for id, why in sorted(missing.items()):
        yield line(clean(f"{id} is declared, and not there: "), (clean(why.reason), "bad"), clean(_tail(why.message)))


def _tail(message: str) -> str:
    return f": {message}" if message else ""


def _bases(one: Observed, mine: Mapping[Key, Observed]) -> list[Observed]:
    """What tells whether it is the same still: itself; its guests, where it has no object of its own."""
    return [one] if one.revision else [mine[key] for id in one.needs if (key := (one.backend, id)) in mine]


def _has_moved(one: Observed, mine: Mapping[Key, Observed], told: Mapping[Key, Told]) -> bool:
    """Whether it is another one than the watch has seen. What it works on moves, and it knows."""
    if told[one.backend, one.id]["working"]:
        return False
    bases = [(base, told.get((base.backend, base.id))) for base in _bases(one, mine)]
    return any(said is None or (said["revision"] != base.revision and not said["working"]) for base, said in bases)


def _looked_again(watch: Answered, moved: Sequence[Observed]) -> dict[Key, Told]:
    """Have the watch look at what it has not seen yet, for a moment; what it has looked at by then."""
    body = {"resources": sorted({str(one.id) for one in moved}), "timeout": _LOOK}
    with suppress(ReconcilerError):
        found = watch.client.post("/v1/look", body, _LOOK + _PATIENCE)["resources"]
        return {(one["backend"], ResourceId.parse(one["id"])): one for one in found}
    return {}


def _said(told: Told) -> Iterator[Condition]:
    for one in told["conditions"]:
        yield Condition(one["type"], one["status"], one["reason"], one["message"], _moment(one["since"]))


def _changed(told: Told) -> Condition:
    """What to say of one that the watch has not seen as it is now."""
    when = f", at {told['lookedAt']}" if told["lookedAt"] else ""
    return Condition(SYNCED, None, "Changed", f"it has changed since the watch looked at it{when}")


def _why_missing(told: Told) -> Condition | None:
    return next((one for one in _said(told) if one.type == SYNCED and one.status is not True), None)


def _together(ours: Sequence[Condition], said: Sequence[Condition]) -> tuple[Condition, ...]:
    """Ours come first and are believed; the watch adds since when, where it says the same, and what we did not see."""
    told = {one.type: one for one in said}
    first = [
        replace(one, since=told[one.type].since) if one.type in told and told[one.type].status == one.status else one
        for one in ours
    ]
    return (*first, *(one for one in said if one.type not in {mine.type for mine in ours}))


def _moment(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
