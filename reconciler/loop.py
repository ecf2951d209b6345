"""One pass of the flow, for the command line and the daemon alike: prepare → look → plan → apply → look again.

Level-triggered: a pass is told which resources to look at, never what happened to them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reconciler import observation, planning
from reconciler.effects import Table
from reconciler.model import ATTACHMENTS, QEMU, Desired, Outcome, Plan, ResourceId, Result, Run, Step, Verb, World
from reconciler.planning import PlanOptions
from reconciler.planning.following import guests_followed
from reconciler.ports import Backend
from reconciler.preparation import Wanted, prepare

if TYPE_CHECKING:
    from reconciler.execution import OnEvent

__all__ = ["ApplyOptions", "Wanted", "apply_delete", "apply_plan", "delete", "look", "make_plan", "prepare"]


About = Mapping[str, Collection[ResourceId] | None]
"""Backend → what to look at there; None: everything."""


def look(
    wanted: Wanted, backends: Mapping[str, Backend], options: PlanOptions, done: tuple[Plan, World] | None = None
) -> World:
    """Observe what the pass is about: everything when it may prune, else what is declared and what that refers to.

    done: the plan that was carried out and what it was made from: then what else there is has been seen already
    """
    chosen = planning.chosen(wanted.desired, options.only)
    forwards = any(id.kind == "PortForward" for id in chosen)
    about: About | None = scope(chosen.values())
    if options.prune and not options.only:
        about = touched(*done, scope(chosen.values())) if done is not None else None
    return observation.observe(backends, about, forwards, guests_followed(chosen.values()))


def touched(plan: Plan, world: World, declared: Mapping[str, set[ResourceId]]) -> About:
    """What a look after the plan is about: what is declared, and whatever else was to be done. A backend that could
    not be told of is asked for everything again: what there is to prune in it, nobody knows yet."""
    found = {name: set(ids) for name, ids in declared.items()}
    for step in plan.steps:
        if step.verb is not Verb.NOOP and step.id.kind not in ATTACHMENTS:
            found.setdefault(step.backend, set()).add(step.id)
    return {**found, **{name: None for name in world.snapshots if world.problem(name) is not None}}


def scope(desired: Collection[Desired]) -> dict[str, set[ResourceId]]:
    """Backend → the resources there that matter to these."""
    found: dict[str, set[ResourceId]] = {}
    homes = {want.id: want.backend for want in desired}
    for want in desired:
        if want.id.kind in ATTACHMENTS:
            continue  # its guests are looked at
        here = found.setdefault(want.backend, set())
        here.add(want.id)
        here.update(want.expects)
        if want.renamed_from is not None:
            here.add(want.renamed_from)
        here.update(need for need in want.needs if homes.get(need) == want.backend)
    return found


def make_plan(
    wanted: Wanted, backends: Mapping[str, Backend], options: PlanOptions, done: tuple[Plan, World] | None = None
) -> tuple[Plan, World]:
    """One fresh look, and what to do about it. done: as for ``look``."""
    world = look(wanted, backends, options, done)
    return planning.plan(wanted.environment, wanted.desired, world, tables(backends), options), world


def tables(backends: Mapping[str, Backend]) -> dict[str, Table]:
    """Each backend's effects table, for the version that just answered."""
    return {name: backend.effects() for name, backend in backends.items()}


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How to carry a plan out. trigger: who asked, for the history; parallel: steps at once;
    stop: once set, nothing new is begun; agree: asked before a further plan is carried out, see ``apply_plan``."""

    trigger: str = "apply"
    parallel: int = 8
    on_event: OnEvent = lambda _id, _state, _message: None
    stop: threading.Event | None = None
    agree: Callable[[Plan], bool] = lambda _plan: True


def apply_plan(
    wanted: Wanted,
    plan: Plan,
    world: World,
    backends: Mapping[str, Backend],
    plan_options: PlanOptions,
    options: ApplyOptions,
) -> Run:
    """Carry the plan out, then look again: only a new observation says converged.

    What could not be known before (it awaited a step of the plan) is planned after that, and carried out in a further
    round. Each round brings at least one thing up that the last one could not see, so they come to an end. So is, twice
    at most, what a backend could not tell the end of, such as an object that moved under our hands.
    """
    outcomes = _execute(wanted.desired, plan, world, backends, options)
    if not plan.work:
        return Run(_run_id(), options.trigger, plan, outcomes, plan.in_sync)
    then = replace(plan_options, reset=frozenset())  # what was asked for has been done, or has failed: once is enough
    again, seen = make_plan(wanted, backends, then, (plan, world))
    while _goes_on(plan, again, outcomes, options):
        further = _execute(wanted.desired, again, seen, backends, options)
        plan, outcomes = _joined(plan, again), _joined_outcomes(outcomes, further)
        again, seen = make_plan(wanted, backends, then, (plan, world))
    for _ in range(_DOUBTS):
        rest = doubtful(plan, again, outcomes)
        if again.blocker or not rest.work or (options.stop is not None and options.stop.is_set()):
            break
        further = _execute(wanted.desired, rest, seen, backends, options)
        plan, outcomes = _joined(plan, rest), _joined_outcomes(outcomes, further)
        again, seen = make_plan(wanted, backends, then, (plan, world))
    outcomes = settled(outcomes, again)
    done = {outcome.step.id for outcome in outcomes if outcome.result is Result.APPLIED}
    return Run(_run_id(), options.trigger, plan, outcomes, again.in_sync and plan_options.reset <= done)


_DOUBTS = 2
"""Further rounds for what nobody could tell the end of."""


def doubtful(plan: Plan, again: Plan, outcomes: Collection[Outcome]) -> Plan:
    """What is still to do of that which may or may not have happened, and of what that held up: nothing that was not
    planned, and agreed to, before, and nothing more harmful."""
    open_ends = {one.step.id for one in outcomes if one.unsure or one.result is Result.BLOCKED}
    doubt = any(one.unsure for one in outcomes)
    before = {step.id: step for step in plan.work if doubt and step.id in open_ends}
    picked: dict[ResourceId, Step] = {}
    while more := [step for step in again.work if step.id not in picked and picked.keys() >= {*step.after}]:
        fit = {step.id: step for step in more if _is_no_more(step, before.get(step.id))}
        if not fit:
            break
        picked |= fit
    return replace(again, steps=tuple(picked[id] for id in sorted(picked)))


def _is_no_more(step: Step, before: Step | None) -> bool:
    if before is None or (step.deletes and not before.deletes):
        return False
    return step.effect.severity <= before.effect.severity


def settled(outcomes: Collection[Outcome], again: Plan) -> list[Outcome]:
    """The same, but for what nobody could tell the end of and is now seen to be as declared."""
    good = {step.id for step in again.steps if step.verb is Verb.NOOP}
    return [
        replace(one, result=Result.APPLIED, problem=None, unsure=False) if one.unsure and one.step.id in good else one
        for one in outcomes
    ]


def _execute(
    wanted: Mapping[ResourceId, Desired],
    plan: Plan,
    world: World,
    backends: Mapping[str, Backend],
    options: ApplyOptions,
) -> list[Outcome]:
    from reconciler.execution import Job, execute  # not for those who only plan

    return execute(Job(plan, wanted, world, backends, options.on_event, options.parallel, options.stop))


def _goes_on(plan: Plan, again: Plan, outcomes: Collection[Outcome], options: ApplyOptions) -> bool:
    """Whether something that was awaited has come, and there is now something to do about what awaited it."""
    if again.blocker or (options.stop is not None and options.stop.is_set()):
        return False
    done = {outcome.step.id for outcome in outcomes if outcome.result is Result.APPLIED}
    waited = [step for step in plan.steps if step.awaits in done]
    came = {id for step in waited for id in (step.id, step.awaits)}  # a port that was found is its guest's to have
    return any(step.id in came for step in again.work) and options.agree(again)


def _joined(plan: Plan, further: Plan) -> Plan:
    """One plan for the account: what was done first, and instead of what was held what was done about it then."""
    steps = {step.id: step for step in plan.steps}
    steps |= {step.id: step for step in further.steps if step.verb is not Verb.NOOP or steps[step.id].awaits}
    return replace(plan, steps=tuple(steps[id] for id in sorted(steps)), adjusted={**plan.adjusted, **further.adjusted})


def _joined_outcomes(first: Collection[Outcome], further: Collection[Outcome]) -> list[Outcome]:
    outcomes = {outcome.step.id: outcome for outcome in first}
    for outcome in further:
        if outcome.result is not Result.UNCHANGED or outcomes[outcome.step.id].step.awaits:
            outcomes[outcome.step.id] = outcome
    return [outcomes[id] for id in sorted(outcomes)]


def delete(
    environment: str,
    targets: Mapping[ResourceId, str | None],
    backends: Mapping[str, Backend],
    options: PlanOptions,
) -> tuple[Plan, World]:
    """The plan that makes the targets go away; each with the backend it lives in, where known."""
    world = observation.observe(backends)
    return planning.plan_delete(environment, targets, world, options, tables(backends)), world


def apply_delete(plan: Plan, world: World, backends: Mapping[str, Backend], options: ApplyOptions) -> Run:
    """Carry a deletion out; converged when a fresh look finds none of the deleted."""
    outcomes = _execute({}, plan, world, backends, options)
    again = observation.observe(backends) if plan.work else world
    gone = _gone_with_machines(plan, world, again)
    known = not any(again.problem(step.backend) for step in plan.work if step.backend not in gone)
    return Run(_run_id(), options.trigger, plan, outcomes, known and not _left(plan, again) and plan.complete)


def _gone_with_machines(plan: Plan, before: World, again: World) -> set[str]:
    """The backends that were inside of VMs which are deleted: that they do not answer any more is as it should be."""
    deleted = {step.id for step in plan.work if step.verb is Verb.DELETE and again.find(step.backend, step.id) is None}
    machines = {id for id in deleted if id.kind == "VirtualMachine"}
    return {seen.backend for seen in before if machines & set(seen.needs) and seen.backend != QEMU}


def _left(plan: Plan, again: World) -> bool:
    """Whether anything is there still that was to go: a resource, or what was to be taken out of one."""
    gone = {step.id for step in plan.work if step.verb is Verb.DELETE}
    taken = {(step.id, change.path) for step in plan.work for change in step.changes if change.op == "remove"}
    for seen in again:
        if seen.id in gone and seen.owned:
            return True
        if any(id == seen.id and path[1] in seen.spec.get(path[0], {}) for id, path in taken):
            return True
    return False


def _run_id() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(3).hex()}"
