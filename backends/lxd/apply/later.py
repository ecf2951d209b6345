"""APPLY, from the verbs ``start`` and ``restart``: what ``updatePolicy`` made wait comes true now that it is down, and
the commands of each start are run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reconciler.backends.lxd.apply import containers, power
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.marks import Mark, read_mark
from reconciler.backends.lxd.terms.containers import is_up, spec_of
from reconciler.diff import diff
from reconciler.model import Change, Desired, Effect, Power, ResourceId, Spec, Step, Verb
from reconciler.ports import Settings, Tell

_NOT_AT_HAND = frozenset({"image", "files", "run"})
"""What a restart does not change, or what needs contents that only an apply has."""


def take(
    client: Client, settings: Settings, id: ResourceId, action: str, force: bool, grace: float, tell: Tell
) -> bool:
    """Start or restart it as what waits says, or with its commands; False when there is neither, or it runs and is only
    to be started. What an apply did not finish is left to the next one."""
    raw = client.get("instances", id.name, within=Deadline.after(grace + power.GRACE)).metadata
    mark = read_mark(raw["config"], str(id))
    if mark is None or (action == "start" and is_up(raw)):
        return False
    if mark.later is not None:
        task = _task(client, settings, id, mark, mark.later, _waiting(raw, mark, mark.later), tell)
    elif mark.applied is not None and not mark.pending and _has_commands(mark.applied):
        task = _task(client, settings, id, mark, mark.applied, (), tell)
    else:
        return False
    containers.restart(task, force, grace)
    return True


def _waiting(raw: dict[str, Any], mark: Mark, later: Spec) -> tuple[Change, ...]:
    seen = spec_of(raw, mark.applied)
    found = diff({**later, "power": Power.RUNNING.value}, seen, mark.applied, later.get("ignore", ()))
    return tuple(one for one in found if one.path[0] not in _NOT_AT_HAND and one.path != ("power",))


def _has_commands(spec: Spec) -> bool:
    return any(one["when"] == "start" for one in spec.get("run") or ())


def _task(
    client: Client, settings: Settings, id: ResourceId, mark: Mark, spec: Spec, changes: tuple[Change, ...], tell: Tell
) -> Task:
    spec = {**spec, "power": Power.RUNNING.value}
    step = Step(id, "", Verb.RESTART, "started by hand", Effect.RESTART, changes)
    mine = replace(settings, environment=mark.environment)
    return Task(client, mine, step, Desired(id, "", spec), None, tell, Deadline.after(settings.timeout))
