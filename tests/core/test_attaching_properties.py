"""planning/, attachments by properties: put in once they stay, taken out they are gone, in whatever order one asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import attachments
from reconciler.effects import Rule
from reconciler.model import ATTACHMENTS, Desired, Effect, Observed, Power, ResourceId, Spec, Verb, World
from reconciler.planning import PlanOptions, plan, plan_delete
from tests.support.simulate import simulate, world_of

NAMES = ("a", "b", "c")
GUESTS = [ResourceId(kind, f"{kind[0].lower()}{name}") for kind in ("VirtualMachine", "Container") for name in NAMES]
ALL = [ResourceId(kind, name) for kind in sorted(ATTACHMENTS) for name in NAMES]
BACKENDS = {"VirtualMachine": "qemu", "Container": "lxd/local"}
RULES = {
    "power": Rule(Effect.LIVE),
    "shares.**": Rule(Effect.LIVE, plugs=True),
    "devices.**": Rule(Effect.LIVE, plugs=True),
    "forwards.**": Rule(Effect.LIVE),
    "tpm": Rule(Effect.RESTART),
}
TABLES = {backend: {kind: RULES} for kind, backend in BACKENDS.items()}
own_rules = st.sampled_from([{}, {"shares.**": Rule(Effect.RESTART, "9p")}])
sockets = st.sets(st.tuples(st.just("tcp"), st.just("127.0.0.1"), st.integers(1, 3)), max_size=2)


@st.composite
def specs(draw: st.DrawFn, guest: ResourceId) -> dict[str, Any]:
    spec: dict[str, Any] = {"power": draw(st.sampled_from(["running", "stopped"])), "deletionPolicy": "delete"}
    if policy := draw(st.sampled_from([None, "live", "restart"])):
        spec["updatePolicy"] = policy
    if draw(st.booleans()):
        spec["tpm"] = True
    for id in draw(st.lists(st.sampled_from(ALL), unique=True, max_size=4)):
        part, name = attachments.place(guest.kind, id)
        port = draw(st.integers(1, 3))
        listen = f"127.0.0.1:{port}" if guest.kind == "VirtualMachine" else f"tcp:127.0.0.1:{port}"
        spec.setdefault(part, {})[name] = {"listen": listen, "path": draw(st.sampled_from("xy"))}
    return spec


@st.composite
def desired_sets(draw: st.DrawFn) -> dict[ResourceId, Desired]:
    found: dict[ResourceId, Desired] = {}
    for guest in draw(st.lists(st.sampled_from(GUESTS), unique=True)):
        found[guest] = Desired(guest, BACKENDS[guest.kind], draw(specs(guest)))
    carriers: dict[ResourceId, list[ResourceId]] = {}
    for guest, want in list(found.items()):
        for id, _ in attachments.carried(guest.kind, want.spec):
            carriers.setdefault(id, []).append(guest)
    return found | {id: Desired(id, "qemu", {}, tuple(sorted(guests))) for id, guests in carriers.items()}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    seen = []
    for guest in draw(st.lists(st.sampled_from(GUESTS), unique=True)):
        spec, applied = draw(specs(guest)), draw(st.none() | specs(guest))
        there = {key: value for key, value in spec.items() if key != "power"}
        one = Observed(guest, BACKENDS[guest.kind], there, draw(st.sampled_from([Power.RUNNING, Power.STOPPED])))
        room = draw(st.none() | st.integers(0, 2))
        seen.append(replace(one, owned=True, environment="test", applied=applied, room=room, rules=draw(own_rules)))
    return replace(world_of(*seen, backends=tuple(BACKENDS.values())), listening=frozenset(draw(sockets)))


def still(world: World, after: World) -> World:
    """The world after a plan, with what other programs listen on as before, and the guests' own rules and room."""
    kept = {}
    for name, snapshot in after.snapshots.items():
        resources = {}
        for id, seen in snapshot.resources.items():
            before = world.find(name, id)
            room = 0 if before is not None and before.room is not None else None  # used up
            resources[id] = replace(seen, rules=before.rules, room=room) if before is not None else seen
        kept[name] = replace(snapshot, resources=resources)
    return World(kept, world.listening)


@settings(deadline=None, max_examples=50)
@given(desired_sets(), worlds())
def test_planning_what_was_just_done_finds_nothing(desired: dict[ResourceId, Desired], world: World) -> None:
    world = replace(world, listening=frozenset())
    first = plan("test", desired, world, TABLES, PlanOptions())
    held = {step.id for step in first.steps if step.verb is Verb.HOLD}
    second = plan("test", desired, still(world, simulate(first, desired, world)), TABLES, PlanOptions())
    assert [step for step in second.steps if step.verb is not Verb.NOOP and step.id not in held] == []


@settings(deadline=None, max_examples=50)
@given(desired_sets(), worlds(), st.randoms(use_true_random=False))
def test_planning_is_independent_of_order(desired: dict[ResourceId, Desired], world: World, random: Any) -> None:
    shuffled, snapshots = list(desired.items()), list(world.snapshots.items())
    random.shuffle(shuffled)
    random.shuffle(snapshots)
    other = World(dict(snapshots), world.listening)
    options = PlanOptions(prune=True, confirm_delete=True)
    assert plan("test", dict(shuffled), other, TABLES, options) == plan("test", desired, world, TABLES, options)
    targets: dict[ResourceId, str | None] = dict.fromkeys([*ALL, *desired])
    backwards = dict.fromkeys(reversed(list(targets)))
    options = PlanOptions(confirm_delete=True)
    assert plan_delete("test", targets, world, options, TABLES) == plan_delete(
        "test", backwards, other, options, TABLES
    )


@settings(deadline=None, max_examples=50)
@given(desired_sets(), worlds())
def test_nobody_waits_for_themselves(desired: dict[ResourceId, Desired], world: World) -> None:
    steps = {step.id: step for step in plan("test", desired, world, TABLES, PlanOptions(prune=True)).steps}
    done: set[ResourceId] = set()
    while ready := [id for id, step in steps.items() if id not in done and set(step.after) <= done]:
        done |= set(ready)
    assert done == steps.keys()


@settings(deadline=None, max_examples=50)
@given(worlds(), st.sampled_from(ALL))
def test_what_is_deleted_is_in_no_guest_unless_it_has_to_wait(world: World, id: ResourceId) -> None:
    made = plan_delete("test", {id: None}, world, PlanOptions(), TABLES)
    for seen in simulate(made, {}, world):
        waits = any(step.id == seen.id and step.waiting for step in made.steps)
        assert waits or attachments.entry(seen.id.kind, seen.spec, id) is None
        before = world.find(seen.backend, seen.id)
        assert before is not None and seen.power is before.power
        others = {one: entry for one, entry in attachments.carried(seen.id.kind, before.spec) if one != id}
        assert others == {one: entry for one, entry in attachments.carried(seen.id.kind, seen.spec) if one != id}


@settings(deadline=None, max_examples=50)
@given(desired_sets(), worlds())
def test_no_guest_is_handed_a_port_that_another_program_has(desired: dict[ResourceId, Desired], world: World) -> None:
    result = plan("test", desired, world, TABLES, PlanOptions())
    ours = {listen for seen in world if seen.power is Power.RUNNING for listen in ports(seen.id.kind, seen.spec)}
    taken = {f"127.0.0.1:{port}" for _, _, port in world.listening} - ours
    for step in result.work:
        handed = result.adjusted.get(step.id) or desired[step.id]
        assert not taken & ports(step.id.kind, handed.spec)
    held = {step.id for step in result.steps if step.verb is Verb.HOLD and step.reason.endswith("another program")}
    for id in held:
        assert any(taken & ports(guest.kind, desired[guest].spec) for guest in desired[id].needs)


def ports(kind: str, spec: Spec) -> set[str]:
    """Where a guest's spec makes this machine listen."""
    found = (entry for id, entry in attachments.carried(kind, spec) if id.kind == "PortForward")
    return {attachments.listener(kind, entry).listen for entry in found}
