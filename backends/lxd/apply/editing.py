"""Read, check, write back: every change of an existing object goes this way, so that nobody's edit is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Raced, Reply
from reconciler.backends.lxd.marks import PREFIX
from reconciler.backends.lxd.terms.containers import devices_touched
from reconciler.backends.lxd.terms.values import at
from reconciler.model import Change, Spec
from reconciler.problems import Interrupted, Problem

_TRIES = 5
_SPECIAL = {("owner",), ("recorded",), ("metadata", "name")}

Raw = Mapping[str, Any]
Change_ = Callable[[Raw], "dict[str, Any] | None"]


def edit(task: Task, path: tuple[str, ...], change: Change_, first: Reply | None = None) -> Raw | None:
    """PUT what ``change`` makes of the object (None: it is right already). Returns the object as it was read when it
    was right, None when it has been written.

    ``change`` sees every fresh reading and raises Interrupted when that is not what the plan was made from.
    first: a reading from a moment ago, since which we have written nothing
    """
    for _ in range(_TRIES):
        reply, first = first or task.client.get(*path, within=task.deadline), None
        body = change(reply.metadata)
        if body is None:
            return dict(reply.metadata)
        try:
            task.client.put(path, body, task.deadline, etag=reply.etag)
        except Raced:
            continue  # something else on it changed meanwhile; ``change`` judges whether that matters
        return None
    raise Interrupted(Problem("somebody else keeps changing it", subject=str(task.step.id), hint="plan again"))


def check_unmoved(changes: Iterable[Change], seen: Spec, visible: Iterable[str]) -> None:
    """Raise Interrupted unless each field we are about to change is as the plan saw it, or as wanted already."""
    fields = set(visible)
    for change in changes:
        if change.path in _SPECIAL or change.path[0] not in fields:
            continue
        now = at(seen, change.path)
        if now not in (change.old, change.new):
            raise Interrupted(
                Problem(
                    f"{change.field} was changed by somebody else since the plan was made",
                    detail=f"planned: {change.old!r} to {change.new!r}\nnow: {now!r}",
                    hint="plan again",
                )
            )


def merged(config: Mapping[str, str], wanted: Mapping[str, str], touched: Iterable[str]) -> dict[str, str]:
    """The config with each touched key as wanted, or gone."""
    result = dict(config)
    for key in touched:
        result.pop(key, None)
        if key in wanted:
            result[key] = wanted[key]
    return result


def devices_after(task: Task, raw: Raw, everything: bool) -> dict[str, dict[str, str]]:
    """The devices with each that the step names as wanted, or gone. everything: each that is wanted, besides."""
    wanted = task.spec.get("devices") or {}
    touched = devices_touched(task.step.changes) | (set(wanted) if everything else set())
    kept = {name: device for name, device in (raw["devices"] or {}).items() if name not in touched}
    return kept | {name: dict(wanted[name]) for name in touched if name in wanted}


def remarked(config: Mapping[str, str], mark: Mapping[str, str]) -> dict[str, str]:
    """The config with our mark replaced as a whole."""
    return {key: value for key, value in config.items() if not key.startswith(PREFIX)} | dict(mark)
