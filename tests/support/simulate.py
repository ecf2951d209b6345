"""What the world would look like after a plan: the pure counterpart of execution, for property tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler.model import Desired, Observed, Plan, Power, ResourceId, Snapshot, Step, Verb, World


def simulate(plan: Plan, desired: Mapping[ResourceId, Desired], world: World) -> World:
    """Carry out every step as a well-behaved backend would."""
    snapshots = {name: dict(snapshot.resources) for name, snapshot in world.snapshots.items()}
    for step in plan.steps:
        resources = snapshots.get(step.backend)
        if resources is None or step.verb in (Verb.NOOP, Verb.HOLD):
            continue
        for change in step.changes:
            if change.path == ("metadata", "name"):
                resources[step.id] = replace(resources.pop(ResourceId(step.id.kind, change.old)), id=step.id)
        if step.verb is Verb.DELETE:
            resources.pop(step.id)
        else:
            want = plan.adjusted.get(step.id) or desired[step.id]
            resources[step.id] = _after(step, want, resources.get(step.id), plan.environment)
    return World({name: replace(world.snapshots[name], resources=found) for name, found in snapshots.items()})


def _after(step: Step, want: Desired, seen: Observed | None, environment: str) -> Observed:
    fresh = seen is None or step.verb in (Verb.CREATE, Verb.REPLACE)
    spec: dict[str, Any] = {} if fresh or seen is None else dict(seen.spec)
    for change in step.changes if not fresh else ():
        if change.path[0] not in ("metadata", "owner", "recorded", "power"):
            spec = _set(spec, change.path, change.new, remove=change.op == "remove")
    if fresh:
        spec = {key: value for key, value in want.spec.items() if key != "power"}
    power = Power(want.spec["power"]) if "power" in want.spec else None
    return Observed(
        want.id, want.backend, spec, power, True, "", environment, want.spec, None, want.needs, later=want.later
    )


def _set(spec: Mapping[str, Any], path: tuple[str, ...], value: Any, remove: bool) -> dict[str, Any]:
    head, *rest = path
    changed = dict(spec)
    if rest:
        changed[head] = _set(spec.get(head, {}), tuple(rest), value, remove)
    elif remove:
        changed.pop(head, None)
    else:
        changed[head] = value
    return changed


def world_of(*seen: Observed, backends: tuple[str, ...] = ()) -> World:
    """A world in which these, and nothing else, are there."""
    names = {one.backend for one in seen} | set(backends)
    return World({name: Snapshot(name, 0.0, {one.id: one for one in seen if one.backend == name}) for name in names})
