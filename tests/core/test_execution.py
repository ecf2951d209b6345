"""execution.py: one outcome a step, whatever happens; along the DAG; tried again only where that is safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

import pytest

from reconciler.effects import Table
from reconciler.execution import Job, execute
from reconciler.model import (
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
    World,
)
from reconciler.ports import Tell, only_watching
from reconciler.problems import BackendError, GuestFailed, Interrupted, Problem, Refused, Unreachable
from reconciler.sockets import Socket

NAME = "scripted"


class Scripted:
    """A backend whose ``apply`` does what the test says, and notes the order it was called in."""

    name = NAME

    def __init__(self, script: Callable[[Step], object] = lambda step: None) -> None:
        self.script, self.calls = script, list[str]()

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        tell("working")
        self.calls.append(step.id.name)
        self.script(step)

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        return Snapshot(NAME, 0.0, {})

    def effects(self) -> Table:
        return {}

    def listening(self, id: ResourceId) -> frozenset[Socket]:
        return frozenset()

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        return ()

    def close(self) -> None: ...


def step(name: str, *after: str, verb: Verb = Verb.CREATE) -> Step:
    ids = tuple(ResourceId("Container", other) for other in after)
    return Step(ResourceId("Container", name), NAME, verb, "because", Effect.LIVE, (), ids)


def run(backend: Scripted, *steps: Step, stop: threading.Event | None = None, parallel: int = 4) -> dict[str, Outcome]:
    job = Job(Plan("test", steps), {}, World({}), {NAME: backend}, parallel=parallel, stop=stop)
    return {outcome.step.id.name: outcome for outcome in execute(job)}


def results(outcomes: dict[str, Outcome]) -> dict[str, Result]:
    return {name: outcome.result for name, outcome in outcomes.items()}


def failing(*names: str, error: type[BackendError] = Refused) -> Callable[[Step], None]:
    def script(step: Step) -> None:
        if step.id.name in names:
            raise error(Problem("no"))

    return script


def test_every_step_gets_an_outcome_in_the_plans_order() -> None:
    outcomes = run(Scripted(), step("b"), step("a", verb=Verb.NOOP), step("c", verb=Verb.HOLD))
    assert results(outcomes) == {"b": Result.APPLIED, "a": Result.UNCHANGED, "c": Result.HELD}
    assert list(outcomes) == ["b", "a", "c"]


def test_needs_are_carried_out_first() -> None:
    backend = Scripted()
    run(backend, step("c", "b"), step("b", "a"), step("a"))
    assert backend.calls == ["a", "b", "c"]


def test_a_failure_blocks_what_needs_it_however_far_and_nothing_else() -> None:
    outcomes = run(Scripted(failing("a")), step("a"), step("b", "a"), step("c", "b"), step("d"))
    assert results(outcomes) == {"a": Result.FAILED, "b": Result.BLOCKED, "c": Result.BLOCKED, "d": Result.APPLIED}
    assert outcomes["b"].problem is not None and "Container/a" in outcomes["b"].problem.summary


def test_independent_steps_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=60)  # broken, and the steps fail, unless all three are there at once
    outcomes = run(Scripted(lambda step: meeting.wait()), step("a"), step("b"), step("c"))
    assert set(results(outcomes).values()) == {Result.APPLIED}


def test_one_that_only_watches_gives_its_place_to_the_next_and_no_more_than_that() -> None:
    lock, at_work, most = threading.Lock(), set[str](), list[int]()
    met = threading.Barrier(2, timeout=60)  # broken, and the steps fail, unless two are in it at once

    def script(step: Step) -> None:
        with lock:
            at_work.add(step.id.name)
            most.append(len(at_work))
        time.sleep(0.05)
        with lock:
            at_work.discard(step.id.name)
        only_watching()
        only_watching()
        met.wait()

    outcomes = run(Scripted(script), *(step(name) for name in "abcdef"), parallel=1)
    assert set(results(outcomes).values()) == {Result.APPLIED}
    assert max(most) == 1


def test_what_needs_another_waits_for_its_watching_too() -> None:
    ended: list[str] = []

    def script(step: Step) -> None:
        assert step.id.name == "a" or ended == ["a"]
        only_watching()
        time.sleep(0.1)
        ended.append(step.id.name)

    assert set(results(run(Scripted(script), step("b", "a"), step("a"))).values()) == {Result.APPLIED}
    only_watching()  # outside of a step it says nothing to anybody


@pytest.mark.parametrize(("error", "calls"), [(Refused, 1), (GuestFailed, 1), (Interrupted, 3), (Unreachable, 3)])
def test_only_what_may_have_been_chance_is_tried_again(error: type[BackendError], calls: int) -> None:
    backend = Scripted(failing("a", error=error))
    assert results(run(backend, step("a"))) == {"a": Result.FAILED}
    assert len(backend.calls) == calls


def test_a_second_try_that_works_is_applied() -> None:
    errors = iter([Interrupted(Problem("cut off"))])

    def once(_: Step) -> None:
        for error in errors:
            raise error

    assert results(run(Scripted(once), step("a"))) == {"a": Result.APPLIED}


def test_once_asked_to_stop_nothing_new_begins_and_everything_is_accounted_for() -> None:
    stop = threading.Event()
    backend = Scripted(lambda step: stop.set())
    outcomes = run(backend, step("a"), step("b", "a"), stop=stop)
    assert results(outcomes) == {"a": Result.APPLIED, "b": Result.BLOCKED}
    assert backend.calls == ["a"]


def test_once_asked_to_stop_what_was_waiting_for_a_place_does_not_begin_either() -> None:
    stop = threading.Event()
    backend = Scripted(lambda step: stop.set())
    outcomes = run(backend, *(step(name) for name in "abcdef"), stop=stop, parallel=1)
    assert [outcome.result for outcome in outcomes.values()].count(Result.APPLIED) == len(backend.calls) == 1
    assert set(results(outcomes).values()) == {Result.APPLIED, Result.BLOCKED}


def test_a_bug_of_ours_is_told_and_costs_no_sibling_its_account() -> None:
    def bug(step: Step) -> None:
        if step.id.name == "a":
            raise ZeroDivisionError

    outcomes = run(Scripted(bug), step("a"), step("b", "a"), step("c"))
    assert results(outcomes) == {"a": Result.FAILED, "b": Result.BLOCKED, "c": Result.APPLIED}
    assert isinstance(outcomes["a"].bug, ZeroDivisionError)
