"""loop.py: what a backend could not tell the end of is looked at again, and done again if need be, but not for ever."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from reconciler.effects import Table
from reconciler.loop import ApplyOptions, apply_plan, doubtful, make_plan, settled
from reconciler.model import (
    Change,
    Condition,
    Desired,
    Effect,
    Observed,
    Outcome,
    Plan,
    ResourceId,
    Result,
    Snapshot,
    Step,
    Verb,
)
from reconciler.planning import PlanOptions
from reconciler.ports import Backend, Tell
from reconciler.preparation import Wanted
from reconciler.problems import Interrupted, Problem, Unreachable
from reconciler.sockets import Socket

WHY = Problem("it moved")


def step(
    name: str, *after: str, verb: Verb = Verb.UPDATE, effect: Effect = Effect.LIVE, destroys: bool = False
) -> Step:
    changes = (Change("change", ("memory",), 1, 2, effect, destroys=destroys),)
    return Step(
        ResourceId("Container", name), "lxd/local", verb, "because", effect, changes, tuple(map(identity, after))
    )


def identity(name: str) -> ResourceId:
    return ResourceId("Container", name)


def plan(*steps: Step) -> Plan:
    return Plan("test", steps)


def unsure(step: Step) -> Outcome:
    return Outcome(step, Result.FAILED, problem=WHY, unsure=True)


def failed(step: Step) -> Outcome:
    return Outcome(step, Result.FAILED, problem=WHY)


def blocked(step: Step) -> Outcome:
    return Outcome(step, Result.BLOCKED, problem=WHY)


def names(rest: Plan) -> list[str]:
    return [step.id.name for step in rest.steps]


def test_what_is_in_doubt_goes_on_with_what_it_held_up() -> None:
    first = plan(step("a"), step("b", "a"), step("c", "b"), step("d"), step("e", "d"))
    ends = [unsure(first.steps[0]), *map(blocked, first.steps[1:3]), failed(first.steps[3]), blocked(first.steps[4])]
    assert names(doubtful(first, first, ends)) == ["a", "b", "c"]
    gone = plan(step("b"), step("c", "b"), step("d"), step("e", "d"))  # a is as declared by now
    assert names(doubtful(first, gone, ends)) == ["b", "c"]


def test_without_doubt_nothing_is_tried_again() -> None:
    first = plan(step("a"), step("b", "a"))
    assert names(doubtful(first, first, [failed(first.steps[0]), blocked(first.steps[1])])) == []


@pytest.mark.parametrize(
    "now",
    [
        step("a", effect=Effect.RESTART, verb=Verb.RESTART),
        step("a", destroys=True),
        step("a", verb=Verb.DELETE, effect=Effect.NONE),
        step("z"),
        step("a", "z"),
    ],
    ids=[
        "it would restart",
        "data would go",
        "it would be deleted",
        "it was not planned",
        "what was not planned is first",
    ],
)
def test_nothing_more_than_was_agreed_to_is_done(now: Step) -> None:
    first = plan(step("a"))
    assert names(doubtful(first, plan(now), [unsure(first.steps[0])])) == []


def test_a_circle_is_no_way_to_hang() -> None:
    first = plan(step("a", "b"), step("b", "a"))
    assert names(doubtful(first, first, [unsure(one) for one in first.steps])) == []


def test_what_is_seen_to_be_as_declared_has_happened() -> None:
    one, other, third = step("a"), step("b"), step("c")
    again = plan(replace(one, verb=Verb.NOOP), other, replace(third, verb=Verb.NOOP))
    ends = settled([unsure(one), unsure(other), failed(third)], again)
    assert [end.result for end in ends] == [Result.APPLIED, Result.FAILED, Result.FAILED]
    assert ends[0].problem is None and ends[1].problem == WHY


class Doubtful:
    """A backend of profiles that does not know how its first so many tries ended. happened: whether they did."""

    name = "lxd/local"

    def __init__(self, doubts: int, happened: bool) -> None:
        self.doubts, self.happened = doubts, happened
        self.there: dict[ResourceId, Observed] = {}
        self.asked: list[set[str] | None] = []
        self.silent = 0

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        self.asked.append(None if only is None else {str(id) for id in only})
        if self.silent:
            self.silent -= 1
            raise Unreachable(WHY)
        return Snapshot(self.name, 0.0, {id: one for id, one in self.there.items() if only is None or id in only})

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        if desired is None:
            del self.there[step.id]
            return
        doubt, self.doubts = self.doubts > 0, self.doubts - 1
        if self.happened or not doubt:
            spec = desired.spec
            self.there[step.id] = Observed(step.id, self.name, spec, owned=True, environment="test", applied=spec)
        if doubt:
            raise Interrupted(WHY)

    def effects(self) -> Table:
        return {}

    def listening(self, id: ResourceId) -> frozenset[Socket]:
        return frozenset()

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        return ()

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("doubts", "happened", "result"),
    [(3, False, Result.APPLIED), (3, True, Result.APPLIED), (99, False, Result.FAILED)],
    ids=["done in a further round", "it had happened", "not for ever"],
)
def test_one_apply_gets_over_a_doubt(doubts: int, happened: bool, result: Result) -> None:
    id = ResourceId("Profile", "p")
    backend = Doubtful(doubts, happened)
    wanted = Wanted("test", {id: Desired(id, backend.name, {"config": {}})})
    backends: dict[str, Backend] = {backend.name: backend}
    first, world = make_plan(wanted, backends, PlanOptions())
    run = apply_plan(wanted, first, world, backends, PlanOptions(), ApplyOptions())
    assert ([end.result for end in run.outcomes], run.converged) == ([result], result is Result.APPLIED)


def profile(name: str, protect: bool = False) -> Observed:
    """One of ours."""
    spec = {"config": {}, "protect": protect}
    return Observed(ResourceId("Profile", name), "lxd/local", spec, owned=True, environment="test", applied=spec)


@pytest.mark.parametrize(("protect", "result"), [(False, Result.APPLIED), (True, Result.HELD)])
def test_after_pruning_only_what_was_to_be_done_is_looked_at_again(protect: bool, result: Result) -> None:
    backend, id = Doubtful(0, happened=True), ResourceId("Profile", "p")
    backend.there = {one.id: one for one in (profile("left", protect), profile("old"))}
    other = Observed(ResourceId("Profile", "others"), backend.name, {}, owned=True, environment="another")
    backend.there[other.id] = other
    wanted = Wanted("test", {id: Desired(id, backend.name, {"config": {}})})
    backends: dict[str, Backend] = {backend.name: backend}
    options = PlanOptions(prune=True)
    first, world = make_plan(wanted, backends, options)
    run = apply_plan(wanted, first, world, backends, options, ApplyOptions())
    assert backend.asked == [None, {"Profile/left", "Profile/old", "Profile/p"}]
    ends = {str(end.step.id): end.result for end in run.outcomes}
    assert ends == {"Profile/left": result, "Profile/old": Result.APPLIED, "Profile/p": Result.APPLIED}
    assert run.converged is not protect and other.id in backend.there


def test_a_backend_that_kept_silent_is_asked_for_everything_again() -> None:
    silent, talking = Doubtful(0, happened=True), Doubtful(0, happened=True)
    silent.name, silent.silent, silent.there = "lxd/far", 1, {profile("left").id: profile("left")}
    id = ResourceId("Profile", "p")
    wanted = Wanted("test", {id: Desired(id, talking.name, {"config": {}})})
    backends: dict[str, Backend] = {talking.name: talking, silent.name: silent}
    first, world = make_plan(wanted, backends, PlanOptions(prune=True))
    run = apply_plan(wanted, first, world, backends, PlanOptions(prune=True), ApplyOptions())
    assert (talking.asked, silent.asked) == ([None, {"Profile/p"}], [None, None])
    assert not run.converged
