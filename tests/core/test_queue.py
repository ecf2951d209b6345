"""queue.py: never twice at once, nothing forgotten, what fails comes later and later."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.queue import Backoff, WorkQueue

KEYS = st.sampled_from("abcd")


@pytest.mark.parametrize(
    ("failures", "chance", "pause"),
    [(1, 0.5, 0.5), (2, 0.5, 1.0), (4, 0.5, 4.0), (1, 0.0, 0.4), (1, 1.0, 0.6), (11, 0.5, 300.0), (999, 1.0, 300.0)],
)
def test_each_pause_is_twice_the_last(failures: int, chance: float, pause: float) -> None:
    assert Backoff().pause(failures, chance) == pytest.approx(pause)


def test_what_is_due_is_taken_once_and_in_its_order() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("b", 0.0)
    queue.add("ab", 1.0)
    assert queue.next_due() == 0.0
    assert queue.take(1.0) == ["b", "a"] and queue.take(9.0) == [] and queue.next_due() is None


def test_what_comes_while_it_is_at_work_comes_after() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 0.0)
    assert queue.take(0.0) == ["a"]
    queue.add("a", 1.0)
    assert queue.take(2.0) == []
    queue.done("a", 3.0)
    assert queue.take(3.0) == ["a"]


def test_events_do_not_hurry_what_fails_while_it_is_at_work_and_a_person_does() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 1.0)
    queue.take(1.0)
    queue.add("a", 1.0)  # its own failing made that event
    queue.done("a", 1.0, ok=False)
    assert queue.next_due() == 1.5 and queue.failures("a") == 1
    queue.hurry("a", 1.1)
    assert queue.take(1.1) == ["a"] and queue.failures("a") == 0


def test_what_went_well_has_a_clean_slate() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for now in (0.0, 10.0):
        queue.add("a", now)
        queue.take(now)
        queue.done("a", now, ok=False, pause=0.0)
    assert queue.take(10.0) == ["a"]
    queue.done("a", 10.0)
    assert queue.failures("a") == 0 and queue.next_due() is None


def test_a_claimed_key_is_at_work_and_waits_no_longer() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 5.0)
    queue.claim("ab")
    assert queue.working == {"a", "b"} and queue.depth == 0 and queue.next_due() is None


class Machine(RuleBasedStateMachine):
    """Whatever happens: every wish is answered by a taking that comes after it, and no key is at work twice."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: WorkQueue[str] = WorkQueue()
        self.wished: set[str] = set()
        self.working: set[str] = set()

    @rule(key=KEYS, delay=st.sampled_from([0.0, 1.0, 30.0]))
    def add(self, key: str, delay: float) -> None:
        self.queue.add([key], self.now, delay)
        self.wished.add(key)

    @rule(step=st.sampled_from([0.0, 0.5, 400.0]))
    def take(self, step: float) -> None:
        self.now += step
        taken = self.queue.take(self.now)
        assert len(set(taken)) == len(taken) and not self.working & set(taken)
        self.working |= set(taken)
        self.wished -= set(taken)

    @precondition(lambda self: self.working)
    @rule(ok=st.booleans(), choice=st.integers(0, 3))
    def done(self, ok: bool, choice: int) -> None:
        key = sorted(self.working)[choice % len(self.working)]
        self.working.discard(key)
        self.queue.done(key, self.now, ok)
        if not ok:
            self.wished.add(key)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget([key])
        self.wished.discard(key)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.queue.working == self.working
        waiting = self.wished - self.working
        assert self.queue.depth == len(waiting)
        assert (self.queue.next_due() is None) == (not waiting)


TestMachine = Machine.TestCase
