"""APPLY, from the verbs ``start`` and ``restart``: what ``updatePolicy`` made wait comes true now that it is down."""

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
from reconciler.model import Desired, Effect, Power, ResourceId, Step, Verb
from reconciler.ports import Settings, Tell

_NOT_AT_HAND = frozenset({"image", "files", "run"})
"""What a restart does not change, or what needs contents that only an apply has."""


def take(
    client: Client, settings: Settings, id: ResourceId, action: str, force: bool, grace: float, tell: Tell
) -> bool:
    """Start or restart it as what waits says; False when nothing waits, or it runs and is only to be started."""
    raw = client.get("instances", id.name, within=Deadline.after(grace + power.GRACE)).metadata
    mark = read_mark(raw["config"], str(id))
    if mark is None or mark.later is None or (action == "start" and is_up(raw)):
        return False
    task = _task(client, settings, id, raw, mark, tell)
    containers.restart(task, force, grace)
    return True


def _task(client: Client, settings: Settings, id: ResourceId, raw: dict[str, Any], mark: Mark, tell: Tell) -> Task:
    assert mark.later is not None
    spec = {**mark.later, "power": Power.RUNNING.value}
    seen = spec_of(raw, mark.applied)
    found = diff(spec, seen, mark.applied, spec.get("ignore", ()))
    changes = tuple(one for one in found if one.path[0] not in _NOT_AT_HAND and one.path != ("power",))
    step = Step(id, "", Verb.RESTART, "what waited for a restart", Effect.RESTART, changes)
    mine = replace(settings, environment=mark.environment)
    return Task(client, mine, step, Desired(id, "", spec), None, tell, Deadline.after(settings.timeout))
