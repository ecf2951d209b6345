"""WATCH, what may happen while nobody is looking: a plan, and of it what is carried out now. Pure.

``updatePolicy`` (``live`` where nothing is said) is obeyed by the planning already. Here it is about what goes: only
``approve: {delete: true}`` lets that happen; about drift that is only to be reported; and about guests that end again
and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.model import Desired, Effect, Observed, Plan, Power, ResourceId, Step, Verb, World
from reconciler.planning.comparing import same_record

_ENDED = (Power.STOPPED, Power.ERROR)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds in this environment. drift: ``heal`` or ``report``, for what does not say it itself;
    act: False: look and report, touch nothing;
    pause: seconds that a guest which ended has to wait before it is started again."""

    approve: Mapping[str, bool] = field(default_factory=dict)
    drift: str = "heal"
    act: bool = True
    why_not: str = "only watching"
    pause: Callable[[ResourceId], float] = lambda _id: 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """Why a step is not carried out. reason: one word, for conditions; message: for people;
    again: in how many seconds it may be, where time is what it takes."""

    reason: str
    message: str
    again: float | None = None


def worst_unattended(approve: Mapping[str, bool]) -> Effect:
    """The worst that may happen to what has no ``updatePolicy``."""
    if approve.get("replace"):
        return Effect.REPLACE
    return Effect.RESTART if approve.get("restart") else Effect.LIVE


def sort_out(
    plan: Plan, desired: Mapping[ResourceId, Desired], world: World, rules: Rules
) -> tuple[Plan, dict[ResourceId, Held]]:
    """The plan with what must not happen now turned into holds, and why each of these is one."""
    held = {step.id: why for step in plan.work if (why := _held(plan, step, desired.get(step.id), world, rules))}
    return replace(plan, steps=tuple(_hold(step, held) for step in plan.steps)), held


def is_drift(want: Desired, seen: Observed | None) -> bool:
    """Whether it was as wanted once, and somebody else changed it since."""
    return seen is not None and seen.owned and seen.pending is None and same_record(want, seen)


def has_ended(want: Desired, seen: Observed | None) -> bool:
    """Whether it is a guest of ours that ran, as it is to, and does not any more."""
    if seen is None or seen.power not in _ENDED or want.spec.get("power") != Power.RUNNING:
        return False
    return (seen.applied or {}).get("power") == Power.RUNNING


def _held(plan: Plan, step: Step, want: Desired | None, world: World, rules: Rules) -> Held | None:
    if plan.blocker is not None and step.verb is Verb.DELETE:
        return Held("DeletionGuard", plan.blocker.summary)
    if not rules.act:
        return Held("Suspended", rules.why_not)
    if step.deletes and not rules.approve.get("delete"):
        return Held("NotApproved", "it would be deleted, which approve: {delete: true} lets happen unattended")
    if want is None:
        return None
    seen = world.find(step.backend, step.id)
    policy = want.spec.get("driftPolicy") or rules.drift
    if policy == "report" and is_drift(want, seen):
        fields = ", ".join(change.field for change in step.changes)
        return Held("DriftReported", f"changed by somebody else: {fields or step.reason}")
    return _of_ended(want, seen, rules) if seen is not None and has_ended(want, seen) else None


def _of_ended(want: Desired, seen: Observed, rules: Rules) -> Held | None:
    restart = "always" if want.spec.get("lifetime") == "always" else want.spec.get("restart", "always")
    if want.spec.get("lifetime") == "session" and not any(one.reason == "Died" for one in seen.conditions):
        return Held("Ended", "it has ended, and lifetime: session leaves it so")
    if restart == "never":
        return Held("Ended", "it has ended, and restart: never leaves it so")
    if restart == "on-failure" and any(one.reason == "ShutDownByGuest" for one in seen.conditions):
        return Held("Ended", "its guest has shut it down, and restart: on-failure leaves it so")
    pause = rules.pause(want.id)
    if pause <= 0:
        return None
    return Held("CrashLoop", f"it ends again and again: started again in {pause:.0f} s", pause)


def _hold(step: Step, held: Mapping[ResourceId, Held]) -> Step:
    if step.id not in held:
        return step
    return replace(step, verb=Verb.HOLD, reason=held[step.id].message)


def islands(plan: Plan) -> list[tuple[Step, ...]]:
    """The steps that do something, in groups that have nothing to do with each other: each is carried out by itself."""
    home: dict[ResourceId, set[ResourceId]] = {}
    for step in plan.work:
        group = home.setdefault(step.id, {step.id})
        for id in step.after:
            other = home.setdefault(id, {id})
            if other is not group:
                group |= other
                home.update(dict.fromkeys(other, group))
    groups = {id: min(group) for id, group in home.items()}
    found: dict[ResourceId, list[Step]] = {}
    for step in plan.work:
        found.setdefault(groups[step.id], []).append(step)
    return [tuple(steps) for _, steps in sorted(found.items())]
