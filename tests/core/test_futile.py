"""watch/work.py: what is made so again and again and never stays so is looked at for its pauses, not for its events."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.effects import Rule, Table
from reconciler.model import Condition, Desired, Effect, Observed, Power, ResourceId, Snapshot, Step
from reconciler.ports import Tell
from reconciler.preparation import Wanted
from reconciler.sockets import Socket
from reconciler.watch.inbox import Inbox
from reconciler.watch.journal import Journal
from reconciler.watch.meter import Meter
from reconciler.watch.runs import Runs
from reconciler.watch.unattended import Rules
from reconciler.watch.work import Work

WEB = ResourceId("Container", "web")
SPEC = {"power": "running", "deletionPolicy": "delete", "memory": {"size": 2}}
WANT = Desired(WEB, "lxd/local", SPEC)
FAR = 1e6
"""Seconds beyond every pause."""


class Stubborn:
    """A backend that takes every change, and keeps none until ``yields``."""

    name = "lxd/local"
    yields = False

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        spec = {key: value for key, value in SPEC.items() if key != "power"}
        seen = Observed(WEB, self.name, spec, Power.RUNNING, True, "", "test", SPEC)
        found = seen if self.yields else replace(seen, spec={**spec, "memory": {"size": 1}})
        return Snapshot(self.name, time.time(), {WEB: found})

    def effects(self) -> Table:
        return {"Container": {"memory.size": Rule(Effect.LIVE)}}

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None: ...

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        return ()

    def listening(self, id: ResourceId) -> frozenset[Socket]:
        return frozenset()

    def close(self) -> None: ...


@pytest.fixture
def backend() -> Stubborn:
    return Stubborn()


@pytest.fixture
def work(tmp_path: Path, backend: Stubborn) -> Work:
    def fail(error: BaseException) -> None:
        raise AssertionError from error

    rules = Rules({})
    made = Work(Inbox(), Journal(), Runs(tmp_path, fail), Meter(), lambda _wanted: rules, 1)
    made.want(Wanted("test", {WEB: WANT}, False, {}), [WEB])
    made.backends = {backend.name: backend}
    made.queue.add([WEB], time.monotonic())
    return made


def round(work: Work) -> None:
    """Whatever waits is looked at, and carried out."""
    work.look(time.monotonic() + FAR, everything=False)
    while work.busy:
        work.inbox.drain(30.0)


def test_after_three_vain_rounds_its_events_hurry_nothing(work: Work, backend: Stubborn) -> None:
    found = []
    for _ in range(4):
        round(work)
        found.append((work.queue.failures(WEB), work.is_futile(WEB)))
    assert found == [(1, False), (2, False), (3, True), (4, True)]

    backend.yields = True
    round(work)
    assert not work.is_futile(WEB) and work.queue.failures(WEB) == 0 and work.in_sync()


def test_what_fails_without_ever_being_done_is_not_called_so(work: Work, backend: Stubborn) -> None:
    for _ in range(4):
        work.queue.take(time.monotonic() + FAR)
        work.queue.done(WEB, time.monotonic(), ok=False)
    assert work.queue.failures(WEB) == 4 and not work.is_futile(WEB)


def test_somebody_who_asks_for_it_gives_it_a_clean_slate(work: Work) -> None:
    for _ in range(3):
        round(work)
    assert work.is_futile(WEB)
    work.queue.hurry([WEB], time.monotonic())
    assert not work.is_futile(WEB)
