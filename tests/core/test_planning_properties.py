"""planning.py, by properties: carried out once, nothing is left to do; the order of asking does not matter."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.effects import Rule
from reconciler.model import Desired, Effect, Observed, Power, ResourceId, Verb, World
from reconciler.planning import PlanOptions, plan
from tests.support.simulate import simulate, world_of

BACKENDS = ("lxd/local", "lxd/far", "qemu")
NAMES = ("a", "b", "c", "d")
RULES = {
    "power": Rule(Effect.LIVE),
    "memory.**": Rule(Effect.LIVE),
    "config.**": Rule(Effect.RESTART),
    "devices.**": Rule(Effect.LIVE),
    "image.**": Rule(Effect.REPLACE),
    "metadata.name": Rule(Effect.RESTART),
    "files.**": Rule(Effect.LIVE),
}
TABLES = {name: {"Container": RULES} for name in BACKENDS}

values = st.sampled_from(["1", "2", "3"])
configs = st.dictionaries(st.sampled_from(["k1", "k2", "limits.x"]), values, max_size=3)
specs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "power": st.sampled_from(["running", "stopped", "paused"]),
        "deletionPolicy": st.sampled_from(["delete", "retain"]),
    },
    optional={
        "memory": st.fixed_dictionaries({"size": st.integers(1, 3)}),
        "config": configs,
        "devices": st.dictionaries(st.sampled_from(["eth0", "root"]), configs, max_size=2),
        "image": st.fixed_dictionaries({"name": values, "identity": values}),
        "imagePolicy": st.sampled_from(["create", "follow"]),
        "updatePolicy": st.sampled_from(["live", "restart", "replace"]),
        "files": st.dictionaries(values, st.fixed_dictionaries({"sha256": values}), max_size=2),
    },
)


@st.composite
def desired_sets(draw: st.DrawFn) -> dict[ResourceId, Desired]:
    found: dict[ResourceId, Desired] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        needs = draw(st.lists(st.sampled_from(sorted(found)), max_size=2, unique=True)) if found else []
        id = ResourceId("Container", name)
        found[id] = Desired(id, draw(st.sampled_from(BACKENDS)), draw(specs), tuple(needs))
    return found


@st.composite
def worlds(draw: st.DrawFn, desired: dict[ResourceId, Desired]) -> World:
    seen = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        id = ResourceId("Container", name)
        backend = desired[id].backend if id in desired else draw(st.sampled_from(BACKENDS))
        spec = draw(specs)
        seen.append(
            Observed(
                id,
                backend,
                {key: value for key, value in spec.items() if key != "power"},
                draw(st.sampled_from(Power)),
                draw(st.booleans()),
                "",
                "test",
                draw(st.none() | specs),
                draw(st.none() | st.just("create")),
            )
        )
    return world_of(*seen, backends=BACKENDS)


cases = desired_sets().flatmap(lambda desired: st.tuples(st.just(desired), worlds(desired)))


@settings(deadline=None)
@given(cases, st.booleans(), st.booleans())
def test_planning_what_was_just_done_finds_nothing(
    case: tuple[dict[ResourceId, Desired], World], prune: bool, adopt: bool
) -> None:
    desired, world = case
    options = PlanOptions(prune=prune, adopt=adopt, confirm_delete=True)
    first = plan("test", desired, world, TABLES, options)
    held = {step.id for step in first.steps if step.verb is Verb.HOLD}
    second = plan("test", desired, simulate(first, desired, world), TABLES, options)
    assert [step for step in second.steps if step.verb is not Verb.NOOP and step.id not in held] == []


@settings(deadline=None)
@given(cases, st.randoms(use_true_random=False))
def test_planning_is_independent_of_order(case: tuple[dict[ResourceId, Desired], World], random: Any) -> None:
    desired, world = case
    options = PlanOptions(prune=True, confirm_delete=True)
    shuffled = list(desired.items())
    random.shuffle(shuffled)
    snapshots = list(world.snapshots.items())
    random.shuffle(snapshots)
    assert plan("test", dict(shuffled), World(dict(snapshots)), TABLES, options) == plan(
        "test", desired, world, TABLES, options
    )


@settings(deadline=None)
@given(cases)
def test_what_runs_first_is_never_after_what_needs_it(case: tuple[dict[ResourceId, Desired], World]) -> None:
    desired, world = case
    steps = {step.id: step for step in plan("test", desired, world, TABLES, PlanOptions()).steps}
    for step in steps.values():
        for earlier in step.after:
            assert earlier in desired[step.id].needs and step.id not in steps[earlier].after


@settings(deadline=None)
@given(cases)
def test_nothing_worse_happens_than_the_update_policy_lets_happen(
    case: tuple[dict[ResourceId, Desired], World],
) -> None:
    desired, world = case
    result = plan("test", desired, world, TABLES, PlanOptions())
    limits = {"live": Effect.LIVE, "restart": Effect.RESTART, "replace": Effect.REPLACE}
    for step in result.steps:
        stated = desired[step.id].spec.get("updatePolicy")
        if stated is None:
            assert not step.waiting
        elif step.verb not in (Verb.HOLD, Verb.DELETE) and step.effect is not Effect.STOP:
            seen = world.find(step.backend, step.id)
            crashed = seen is not None and seen.power is Power.ERROR  # it has no downtime to fear
            most = max(limits[stated].severity, Effect.RESTART.severity if crashed else 0)
            assert step.effect.severity <= most
            assert all(change.effect.severity > most for change in step.waiting)


@settings(deadline=None)
@given(cases)
def test_what_waits_is_what_a_lifted_policy_does(case: tuple[dict[ResourceId, Desired], World]) -> None:
    desired, world = case
    bound = {step.id: step for step in plan("test", desired, world, TABLES, PlanOptions()).steps}
    lifted = plan("test", desired, world, TABLES, PlanOptions(allow=Effect.REPLACE)).steps
    for step in lifted:
        before = bound[step.id]
        assert not step.waiting
        if before.waiting:
            assert {change.path for change in before.waiting} <= {change.path for change in step.changes}
