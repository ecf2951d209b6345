"""planning.py: the list of cases that it is, one test a case."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.effects import Rule
from reconciler.model import Condition, Desired, Effect, Observed, Plan, Power, ResourceId, Snapshot, Verb, World
from reconciler.planning import PlanOptions, plan, plan_delete
from reconciler.problems import Problem
from tests.support.simulate import world_of

LXD = "lxd/local"
WEB = ResourceId("Container", "web")
TABLE = {
    "Container": {
        "power": Rule(Effect.LIVE),
        "memory.**": Rule(Effect.LIVE),
        "nesting": Rule(Effect.RESTART, "read at start"),
        "image.**": Rule(Effect.REPLACE, "another root"),
        "ephemeral": Rule(Effect.IMPOSSIBLE, "fixed at creation"),
        "metadata.name": Rule(Effect.RESTART),
        "files.**": Rule(Effect.LIVE),
    },
    "Volume": {"size": Rule(Effect.LIVE)},
}


def want(name: str = "web", needs: tuple[ResourceId, ...] = (), **spec: Any) -> Desired:
    base = {"power": "running", "deletionPolicy": "delete", "imagePolicy": "create"}
    return Desired(ResourceId("Container", name), LXD, {**base, **spec}, needs)


def seen(like: Desired, power: Power = Power.RUNNING, **differs: Any) -> Observed:
    fields: dict[str, Any] = {"owned": True, "environment": "test", "applied": like.spec, "needs": like.needs}
    overrides = {key: differs.pop(key) for key in list(differs) if key in Observed.__dataclass_fields__}
    return Observed(like.id, LXD, {**like.spec, **differs}, power, **{**fields, **overrides})


def planned(*desired: Desired, world: World, **options: Any) -> Plan:
    return plan("test", {one.id: one for one in desired}, world, {LXD: TABLE}, PlanOptions(**options))


def only_step(result: Plan) -> tuple[Verb, Effect]:
    (step,) = result.steps
    return step.verb, step.effect


GUEST = want(memory={"size": 1})
CASES: list[tuple[str, Desired, Observed | None, tuple[Verb, Effect]]] = [
    ("absent", GUEST, None, (Verb.CREATE, Effect.LIVE)),
    ("as declared", GUEST, seen(GUEST), (Verb.NOOP, Effect.NONE)),
    ("live change", GUEST, seen(GUEST, memory={"size": 2}), (Verb.UPDATE, Effect.LIVE)),
    ("stopped by hand", GUEST, seen(GUEST, Power.STOPPED), (Verb.UPDATE, Effect.LIVE)),
    ("crashed", GUEST, seen(GUEST, Power.ERROR), (Verb.UPDATE, Effect.LIVE)),
    ("to be stopped", want(power="stopped"), seen(want(), Power.RUNNING), (Verb.UPDATE, Effect.STOP)),
    ("restart", want(nesting=True), seen(want(nesting=False)), (Verb.RESTART, Effect.RESTART)),
    (
        "restart of a stopped one",
        want(nesting=True),
        seen(want(nesting=False), Power.STOPPED),
        (Verb.UPDATE, Effect.LIVE),
    ),
    (
        "restart, and it shall stop anyway",
        want(nesting=True, power="stopped"),
        seen(want(nesting=False)),
        (Verb.UPDATE, Effect.STOP),
    ),
    (
        "another image, followed",
        want(image={"name": "a", "identity": "2"}, imagePolicy="follow"),
        seen(want(image={"name": "a", "identity": "1"}, imagePolicy="follow")),
        (Verb.REPLACE, Effect.REPLACE),
    ),
    (
        "another image, not followed",
        want(image={"name": "a", "identity": "2"}),
        seen(want(image={"name": "a", "identity": "1"})),
        (Verb.NOOP, Effect.NONE),
    ),
    ("impossible", want(ephemeral=True), seen(want(ephemeral=False)), (Verb.HOLD, Effect.IMPOSSIBLE)),
    ("unknown harm", want(novel=1), seen(want(novel=2)), (Verb.HOLD, Effect.UNKNOWN)),
    (
        "protected from replacement",
        want(image={"identity": "2"}, imagePolicy="follow", protect=True),
        seen(want(image={"identity": "1"}, imagePolicy="follow", protect=True)),
        (Verb.HOLD, Effect.REPLACE),
    ),
    ("not ours", GUEST, seen(GUEST, owned=False, environment=None), (Verb.HOLD, Effect.NONE)),
    ("another environment's", GUEST, seen(GUEST, environment="other"), (Verb.HOLD, Effect.NONE)),
    ("last apply broke off", GUEST, seen(GUEST, pending="files"), (Verb.UPDATE, Effect.LIVE)),
    ("never recorded", GUEST, seen(GUEST, applied={}), (Verb.UPDATE, Effect.LIVE)),
    (
        "does not answer",
        GUEST,
        seen(GUEST, Power.STOPPED, conditions=(Condition("Answering", False, "Silent", "no greeting in 2 s"),)),
        (Verb.HOLD, Effect.NONE),
    ),
    ("left to others", want(ignore=["power"]), seen(want(ignore=["power"]), Power.STOPPED), (Verb.NOOP, Effect.NONE)),
]


@pytest.mark.parametrize(
    ("desired", "observed", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_cases(desired: Desired, observed: Observed | None, expected: tuple[Verb, Effect]) -> None:
    world = world_of(*([observed] if observed else []), backends=(LXD,))
    assert only_step(planned(desired, world=world)) == expected


def test_a_newer_image_is_mentioned_even_when_it_is_not_followed() -> None:
    desired = want(image={"name": "a", "identity": "2"})
    result = planned(desired, world=world_of(seen(want(image={"name": "a", "identity": "1"}))))
    assert "image has changed" in result.steps[0].notes[0]


def test_adopting_takes_over_what_is_not_ours() -> None:
    result = planned(GUEST, world=world_of(seen(GUEST, owned=False, environment=None, applied=None)), adopt=True)
    assert only_step(result) == (Verb.UPDATE, Effect.LIVE)
    assert [change.field for change in result.steps[0].changes] == ["owner"]


def test_silence_is_not_absence() -> None:
    silent = World({LXD: Snapshot(LXD, 0.0, {}, Problem("no answer"))})
    result = planned(GUEST, world=silent, prune=True)
    assert only_step(result) == (Verb.HOLD, Effect.NONE)
    assert not result.complete and not result.applyable


def test_renaming_keeps_the_object() -> None:
    old = want("old")
    desired = Desired(WEB, LXD, old.spec, renamed_from=old.id)
    result = planned(desired, world=world_of(seen(old)), prune=True)
    assert [(step.id, step.verb) for step in result.steps] == [(WEB, Verb.RESTART)]
    assert result.steps[0].changes[0].path == ("metadata", "name")


def test_what_needs_a_held_and_absent_thing_is_held_too() -> None:
    first = Desired(ResourceId("Volume", "s"), LXD, {}, expects=(ResourceId("StoragePool", "ghost"),))
    second = want("b", needs=(first.id,))
    third = want("c", needs=(second.id,))
    result = planned(first, second, third, world=world_of(backends=(LXD,)))
    assert {step.id.name: step.verb for step in result.steps} == dict.fromkeys("sbc", Verb.HOLD)


def test_a_reference_to_nothing_is_held() -> None:
    desired = Desired(WEB, LXD, GUEST.spec, expects=(ResourceId("Profile", "ghost"),))
    result = planned(desired, world=world_of(backends=(LXD,)))
    assert result.steps[0].verb is Verb.HOLD and "Profile/ghost" in result.steps[0].reason


def test_needs_come_first_and_go_last() -> None:
    volume = Desired(ResourceId("Volume", "data"), LXD, {"size": 1, "deletionPolicy": "delete"})
    guest = want(needs=(volume.id,))
    up = planned(volume, guest, world=world_of(backends=(LXD,)))
    assert {step.id: step.after for step in up.steps} == {volume.id: (), WEB: (volume.id,)}
    there = world_of(seen(guest), Observed(volume.id, LXD, volume.spec, None, True, "", "test", volume.spec))
    down = plan_delete("test", {volume.id: LXD, WEB: None}, there, PlanOptions())
    assert {step.id: step.after for step in down.steps} == {volume.id: (WEB,), WEB: ()}


def test_only_looks_at_what_was_named_and_what_it_needs() -> None:
    a, b, c = want("a"), want("b", needs=(ResourceId("Container", "a"),)), want("c")
    result = planned(a, b, c, world=world_of(backends=(LXD,)), only=frozenset({b.id}))
    assert [step.id.name for step in result.steps] == ["a", "b"]


def test_without_prune_leftovers_are_only_mentioned() -> None:
    result = planned(GUEST, world=world_of(seen(GUEST), seen(want("old"))))
    assert result.in_sync and "Container/old" in result.notes[0]


@pytest.mark.parametrize(
    ("applied", "verb"),
    [({}, Verb.DELETE), ({"deletionPolicy": "retain"}, Verb.NOOP), ({"protect": True}, Verb.HOLD)],
)
def test_prune_respects_what_the_last_manifest_said(applied: dict[str, Any], verb: Verb) -> None:
    left = want("old")
    result = planned(world=world_of(seen(left, applied={**left.spec, **applied})), prune=True)
    assert [step.verb for step in result.steps] == [verb]


def test_prune_never_touches_what_is_not_this_environments() -> None:
    others = (seen(want("a"), environment="other"), seen(want("b"), owned=False, environment=None))
    assert planned(world=world_of(*others), prune=True).steps == ()


@pytest.mark.parametrize(("count", "blocked"), [(3, False), (4, True)])
def test_the_deletion_guard(count: int, blocked: bool) -> None:
    world = world_of(*(seen(want(f"c{index}")) for index in range(count)))
    result = planned(world=world, prune=True)
    assert (result.blocker is not None) is blocked and result.applyable is not blocked
    assert planned(world=world, prune=True, confirm_delete=True).blocker is None


@pytest.mark.parametrize(("confirmed", "verb"), [(False, Verb.NOOP), (True, Verb.DELETE)])
def test_data_outlives_mistakes(confirmed: bool, verb: Verb) -> None:
    volume = Observed(ResourceId("Volume", "d"), LXD, {}, None, True, "", "test", {"deletionPolicy": "retain"})
    result = plan_delete("test", {volume.id: None}, world_of(volume), PlanOptions(confirm_delete=confirmed))
    assert result.steps[0].verb is verb


def test_what_is_deleted_is_only_looked_for_where_it_lives() -> None:
    machine = ResourceId("VirtualMachine", "vm")
    silent = World({LXD: Snapshot(LXD, 0.0, {}, Problem("no answer")), "qemu": Snapshot("qemu", 0.0, {})})
    targets: dict[ResourceId, str | None] = {machine: "qemu", WEB: LXD, ResourceId("Container", "anywhere"): None}
    steps = {step.id.name: step.verb for step in plan_delete("test", targets, silent, PlanOptions()).steps}
    assert steps == {"vm": Verb.NOOP, "web": Verb.HOLD, "anywhere": Verb.HOLD}


@pytest.mark.parametrize(("kind", "verb"), [("Image", Verb.NOOP), ("Container", Verb.HOLD)])
def test_what_another_environment_made_is_not_deleted_with_ours(kind: str, verb: Verb) -> None:
    other = Observed(ResourceId(kind, "x"), LXD, {}, None, True, "", "other", {})
    assert [step.verb for step in plan_delete("test", {other.id: LXD}, world_of(other), PlanOptions()).steps] == [verb]


@pytest.mark.parametrize("policy", ["create", "follow"])
@pytest.mark.parametrize("image", [{}, {"image": {"fingerprint": "ab"}}])
def test_an_image_that_is_not_known_is_not_a_changed_one(policy: str, image: dict[str, Any]) -> None:
    desired = want(image={"name": "a", "identity": "1"}, imagePolicy=policy)
    bare = {key: value for key, value in desired.spec.items() if key != "image"}
    strange = Observed(desired.id, LXD, {**bare, **image}, Power.RUNNING)
    taken = planned(desired, world=world_of(strange), adopt=True)
    assert only_step(taken) == (Verb.UPDATE, Effect.LIVE) and taken.steps[0].notes == ()
    ours = seen(desired)
    later = planned(
        desired,
        world=world_of(Observed(ours.id, LXD, {**bare, **image}, Power.RUNNING, True, "", "test", desired.spec)),
    )
    assert later.in_sync and later.steps[0].notes == ()
