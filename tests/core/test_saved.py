"""saved.py: a plan survives the file unchanged, and is refused once the world has moved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.model import Change, Desired, Effect, Plan, ResourceId, Step, Verb
from reconciler.planning import PlanOptions
from reconciler.problems import Mark, PlanStale, UsageError
from reconciler.saved import is_saved_plan, read, refuse_if_moved, write

WEB = ResourceId("Container", "web")
DESIRED = Desired(
    WEB,
    "lxd/local",
    {"power": "running"},
    (ResourceId("Image", "busybox"),),
    (ResourceId("Profile", "default"),),
    Mark("/m/web.yaml", 1, 1),
    {"tier": "front"},
    ResourceId("Container", "old"),
    {"ab": b"\x00\xff"},
)
CHANGE = Change("change", ("memory", "size"), 1, 2, Effect.LIVE)
WAITING = Change("add", ("nesting",), None, True, Effect.RESTART)
STEP = Step(
    WEB,
    "lxd/local",
    Verb.UPDATE,
    "fields differ",
    Effect.LIVE,
    (CHANGE,),
    (ResourceId("Image", "busybox"),),
    waiting=(WAITING,),
)
OPTIONS = PlanOptions(prune=True, only=frozenset({WEB}), allow=Effect.RESTART)
PLAN = Plan("test", (STEP,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    write(path, {WEB: DESIRED}, OPTIONS, PLAN)
    return path


def test_what_is_read_is_what_was_written(file: Path) -> None:
    saved = read(file)
    assert is_saved_plan(file) and file.stat().st_mode & 0o777 == 0o600
    assert saved.desired == {WEB: DESIRED} and saved.plan == PLAN and saved.environment == "test"
    assert saved.options == OPTIONS


def test_other_words_for_the_same_step_are_the_same_plan(file: Path) -> None:
    refuse_if_moved(read(file).plan, Plan("test", (replace(STEP, reason="said otherwise", notes=("x",)),)))


@pytest.mark.parametrize(
    "now",
    [
        Plan("test", ()),
        Plan("test", (replace(STEP, verb=Verb.NOOP, changes=()),)),
        Plan("test", (replace(STEP, changes=(replace(CHANGE, old=3),)),)),
        Plan("test", (replace(STEP, waiting=()),)),
        Plan("test", (STEP, replace(STEP, id=ResourceId("Container", "new")))),
    ],
)
def test_a_moved_world_is_refused(file: Path, now: Plan) -> None:
    with pytest.raises(PlanStale, match="Container/"):
        refuse_if_moved(read(file).plan, now)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": "reconciler/plan/v2"}', b"\xff\xfe", b"[]"])
def test_a_damaged_file_is_a_named_problem(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(damage)
    with pytest.raises(UsageError, match=r"plan\.json"):
        read(path)
