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
from reconciler.problems import Interrupted, Problem
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

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        return Snapshot(self.name, 0.0, dict(self.there))

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        assert desired is not None
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
