"""SHOW, kept for later: a plan in a file, with everything needed to carry it out, and to see whether it still holds.

The file holds the resolved resources themselves (contents of files too), so treat it like them: mode 0600. Of contents
with secrets it holds where they come from, and asks again when it is applied.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.model import Change, Desired, Effect, Plan, ResourceId, Step, Verb
from reconciler.paths import write_private
from reconciler.planning import PlanOptions
from reconciler.problems import Mark, PlanStale, Problem, UsageError

_FORMAT = "reconciler/plan/v3"
_LARGEST = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Saved:
    """What the file holds: the resources, how the plan was asked for, the plan itself, whether names are kept."""

    environment: str
    desired: Mapping[ResourceId, Desired]
    options: PlanOptions
    plan: Plan
    names: bool = False


def write(
    path: Path, desired: Mapping[ResourceId, Desired], options: PlanOptions, plan: Plan, names: bool = False
) -> None:
    """Write the plan down; names: whether those of guests are to be kept. Raises OSError when the place cannot be
    written to."""
    data = {
        "format": _FORMAT,
        "environment": plan.environment,
        "names": names,
        "options": {
            "prune": options.prune,
            "adopt": options.adopt,
            "only": sorted(map(str, options.only)),
            "confirmDelete": options.confirm_delete,
            "allow": options.allow.value if options.allow else None,
        },
        "desired": [_desired_out(want) for want in desired.values()],
        "steps": [_step_out(step) for step in plan.steps],
    }
    write_private(path, json.dumps(data).encode())


def is_saved_plan(path: Path) -> bool:
    """Told by its first bytes, so that a folder of manifests is never read for it."""
    try:
        with path.open("rb") as file:
            return file.read(64).startswith(b'{"format": "' + _FORMAT.encode())
    except (OSError, ValueError):
        return False


def read(path: Path) -> Saved:
    """Read it back. Raises UsageError when it is not a plan that this version wrote."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        data = json.loads(path.read_bytes())
        desired = [_desired_in(one) for one in data["desired"]]
        only = frozenset(ResourceId.parse(one) for one in data["options"]["only"])
        given = data["options"]
        options = PlanOptions(
            bool(given["prune"]),
            bool(given["adopt"]),
            only,
            bool(given["confirmDelete"]),
            Effect(given["allow"]) if given["allow"] else None,
        )
        names = bool(data.get("names"))
        plan = Plan(str(data["environment"]), tuple(_step_in(one) for one in data["steps"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            Problem(f"{path}: not a saved plan that can be read: {error}", hint="make a new one: plan --out FILE")
        ) from error
    return Saved(plan.environment, {want.id: want for want in desired}, options, plan, names)


def refuse_if_moved(saved: Plan, now: Plan) -> None:
    """Raise PlanStale unless planning the same resources now gives the very same steps."""
    then, today = ({step.id: _essence(step) for step in plan.steps} for plan in (saved, now))
    moved = sorted(str(id) for id in then.keys() | today.keys() if then.get(id) != today.get(id))
    if moved:
        raise PlanStale(
            Problem(
                f"the world has moved since this plan was made: {', '.join(moved[:5])}{' …' if len(moved) > 5 else ''}",
                hint="plan again, look at it, apply that",
            )
        )


def _essence(step: Step) -> str:
    """What a step does, without the words that explain it."""
    whole = _step_out(step)
    return json.dumps({key: whole[key] for key in ("verb", "effect", "changes", "waiting", "after")}, sort_keys=True)


def _desired_out(want: Desired) -> dict[str, Any]:
    return {
        "id": str(want.id),
        "backend": want.backend,
        "spec": want.spec,
        "needs": [str(id) for id in want.needs],
        "expects": [str(id) for id in want.expects],
        "mark": _mark_out(want.mark),
        "labels": dict(want.labels),
        "renamedFrom": str(want.renamed_from) if want.renamed_from else None,
        "payload": {
            key: base64.b64encode(one).decode() for key, one in want.payload.items() if key not in want.recipes
        },
        "recipes": dict(want.recipes),
    }


def _mark_out(mark: Mark | None) -> list[str | int] | None:
    """With an absolute path: the policy asks where a manifest stands, wherever the plan is applied from."""
    return [os.path.abspath(mark.file), mark.line, mark.column] if mark is not None else None


def _desired_in(data: Mapping[str, Any]) -> Desired:
    return Desired(
        ResourceId.parse(data["id"]),
        data["backend"],
        data["spec"],
        tuple(ResourceId.parse(id) for id in data["needs"]),
        tuple(ResourceId.parse(id) for id in data["expects"]),
        Mark(*data["mark"]) if data["mark"] else None,
        data["labels"],
        ResourceId.parse(data["renamedFrom"]) if data["renamedFrom"] else None,
        {key: base64.b64decode(text) for key, text in data["payload"].items()},
        dict(data["recipes"]),
    )


def _step_out(step: Step) -> dict[str, Any]:
    return {
        "id": str(step.id),
        "backend": step.backend,
        "verb": step.verb.value,
        "effect": step.effect.value,
        "reason": step.reason,
        "changes": _changes_out(step.changes),
        "waiting": _changes_out(step.waiting),
        "after": [str(id) for id in step.after],
    }


def _changes_out(changes: Iterable[Change]) -> list[list[Any]]:
    return [[one.op, list(one.path), one.old, one.new, one.effect.value, one.destroys] for one in changes]


def _changes_in(data: Iterable[Any]) -> tuple[Change, ...]:
    return tuple(
        Change(op, tuple(path), old, new, Effect(effect), destroys=bool(destroys))
        for op, path, old, new, effect, destroys in data
    )


def _step_in(data: Mapping[str, Any]) -> Step:
    return Step(
        ResourceId.parse(data["id"]),
        data["backend"],
        Verb(data["verb"]),
        data["reason"],
        Effect(data["effect"]),
        _changes_in(data["changes"]),
        tuple(ResourceId.parse(id) for id in data["after"]),
        waiting=_changes_in(data["waiting"]),
    )
