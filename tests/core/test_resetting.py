"""planning/resetting and the verb: a guest made anew because somebody asked; what stays, and what goes along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.cli.reset import named
from reconciler.effects import Table
from reconciler.model import Desired, Effect, Observed, Plan, Power, ResourceId, Snapshot, Step, Verb, World
from reconciler.planning import PlanOptions, plan
from reconciler.planning.resetting import concerned
from reconciler.problems import Problem, UsageError
from tests.support.simulate import world_of

VM, WEB, FAR = ResourceId("VirtualMachine", "vm"), ResourceId("Container", "web"), ResourceId("Container", "far")
BASE = {"power": "running", "deletionPolicy": "delete", "imagePolicy": "create"}
TABLES: Mapping[str, Table] = {}
DISKS = {"root": {"size": 1}, "data": {"disk": "stays"}, "own": {"size": 2}, "foreign": {"path": "/dev/sdb"}}


def vm(**spec: Any) -> Desired:
    return Desired(VM, "qemu", {**BASE, "lxd": True, **spec})


def inner(id: ResourceId = FAR, **spec: Any) -> Desired:
    return Desired(id, "lxd/vm", {**BASE, **spec}, (VM,))


def seen(like: Desired, power: Power = Power.RUNNING, **applied: Any) -> Observed:
    known = {**like.spec, **applied}
    return Observed(like.id, like.backend, like.spec, power, True, environment="test", applied=known, needs=like.needs)


def reset(id: ResourceId, world: World, *wanted: Desired, **options: Any) -> dict[ResourceId, Step]:
    result = _plan(id, world, *wanted, **options)
    return {step.id: step for step in result.steps}


def _plan(id: ResourceId, world: World, *wanted: Desired, **options: Any) -> Plan:
    desired = {want.id: want for want in wanted}
    chosen = PlanOptions(reset=frozenset({id}), only=concerned(id, desired), **options)
    return plan("test", desired, world, TABLES, chosen)


def test_a_guest_as_declared_is_made_anew_and_says_what_goes_and_what_stays() -> None:
    want = vm(disks=DISKS, lxd=False)
    step = reset(VM, world_of(seen(want)), want)[VM]
    assert (step.verb, step.effect, step.reason) == (Verb.REPLACE, Effect.REPLACE, "asked for")
    assert step.disruptive and step.deletes
    assert step.notes == ("its own disks go: own, root", "kept: Disk/stays")


def test_a_container_keeps_its_volumes() -> None:
    devices = {
        "v": {"type": "disk", "pool": "p", "source": "data", "path": "/v"},
        "s": {"type": "disk", "source": "/srv", "path": "/s"},
    }
    want = Desired(WEB, "lxd/local", {**BASE, "devices": devices})
    step = reset(WEB, world_of(seen(want)), want)[WEB]
    assert (step.verb, step.notes) == (Verb.REPLACE, ("kept: Volume/data",))


def test_nobody_else_is_touched() -> None:
    other = Desired(ResourceId("VirtualMachine", "other"), "qemu", {**BASE, "memory": {"size": 1}})
    steps = reset(
        VM, world_of(seen(vm()), seen(other)), vm(), Desired(other.id, "qemu", {**BASE, "memory": {"size": 2}})
    )
    assert steps.keys() == {VM}


@pytest.mark.parametrize("where", ["manifest", "applied"])
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("protect", True, "it is protected"), ("deletionPolicy", "retain", "it is retained")],
)
def test_what_is_protected_or_retained_is_held(where: str, field: str, value: Any, words: str) -> None:
    want = vm(**({field: value} if where == "manifest" else {}))
    world = world_of(seen(vm(), **({field: value} if where == "applied" else {})))
    step = reset(VM, world, want)[VM]
    assert (step.verb, step.effect) == (Verb.HOLD, Effect.REPLACE)
    assert step.reason.startswith(words)
    confirmed = reset(VM, world, want, confirm_delete=True)[VM]
    assert confirmed.verb is (Verb.HOLD if field == "protect" else Verb.REPLACE)


def test_what_lives_in_it_goes_with_it_and_is_made_again_by_the_same_apply() -> None:
    steps = reset(VM, world_of(seen(vm()), seen(inner())), vm(), inner())
    assert steps[VM].verb is Verb.REPLACE
    assert (steps[FAR].verb, steps[FAR].awaits) == (Verb.HOLD, VM)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"protect": True}, "Container/far inside of it is protected"),
        ({"deletionPolicy": "retain"}, "Container/far inside"),
    ],
)
def test_what_is_protected_inside_protects_the_whole(spec: dict[str, Any], words: str) -> None:
    for want, there in ((inner(**spec), seen(inner())), (inner(), seen(inner(), **spec))):
        step = reset(VM, world_of(seen(vm()), there), vm(), want)[VM]
        assert (step.verb, step.reason.startswith(words)) == (Verb.HOLD, True)
    undeclared = reset(VM, world_of(seen(vm()), seen(inner(), **spec)), vm())[VM]
    assert undeclared.verb is Verb.HOLD


def test_one_that_does_not_come_up_any_more_is_judged_by_what_is_declared() -> None:
    silent = Snapshot("lxd/vm", 0.0, {}, Problem("the VM that it is in does not run"))
    judged: list[tuple[dict[str, Any], Verb]] = [({}, Verb.REPLACE), ({"protect": True}, Verb.HOLD)]
    for spec, verb in judged:
        world = world_of(seen(vm(), Power.STOPPED))
        world = World({**world.snapshots, "lxd/vm": silent})
        assert reset(VM, world, vm(), inner(**spec))[VM].verb is verb


def test_a_container_inside_goes_alone() -> None:
    steps = reset(FAR, world_of(seen(vm()), seen(inner())), vm(), inner())
    assert (steps[FAR].verb, steps[VM].verb) == (Verb.REPLACE, Verb.NOOP)


def test_one_that_is_not_there_is_made_and_one_that_is_not_ours_is_left_alone() -> None:
    world = World({"qemu": Snapshot("qemu", 0.0, {}), "lxd/vm": Snapshot("lxd/vm", 0.0, {})})
    assert reset(VM, world, vm())[VM].verb is Verb.CREATE
    stranger = Observed(VM, "qemu", vm().spec, Power.RUNNING, True, environment="another")
    assert reset(VM, world_of(stranger), vm())[VM].verb is Verb.HOLD


DESIRED = {one.id: one for one in (vm(), inner(), Desired(ResourceId("Container", "vm"), "lxd/local", BASE))}


@pytest.mark.parametrize(
    ("word", "id"), [("far", FAR), ("vm/far", FAR), ("Container/far", FAR), ("VirtualMachine/vm", VM)]
)
def test_names(word: str, id: ResourceId) -> None:
    assert named(word, DESIRED) == id


@pytest.mark.parametrize(
    ("word", "words", "hint"),
    [
        ("vm", "several guests", "say Container/vm or VirtualMachine/vm"),
        ("fra", "declare no such guest", "did you mean far?"),
        ("other/far", "declare no such guest", None),
        ("Image/x", "declare no such guest", None),
        ("Nonsense/x", 'there is no kind "Nonsense"', None),
    ],
)
def test_names_that_are_none(word: str, words: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        named(word, DESIRED)
    [problem] = caught.value.problems
    assert words in problem.summary
    assert hint is None or problem.hint == hint
