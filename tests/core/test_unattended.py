"""watch: what may happen while nobody is looking, in which groups, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.model import Change, Desired, Effect, Observed, Plan, Power, ResourceId, Snapshot, Step, Verb, World
from reconciler.model import Condition as Fact
from reconciler.problems import Problem
from reconciler.resolution.bonds import Bonds
from reconciler.watch.conditions import Board, of_attachment, of_step
from reconciler.watch.passes import told, with_attachments, with_users
from reconciler.watch.unattended import Held, Rules, islands, sort_out, worst_unattended

LXD = "lxd/local"
WEB, DB, NET, VM = (
    ResourceId(kind, name)
    for kind, name in [("Container", "web"), ("Container", "db"), ("Network", "n"), ("VirtualMachine", "vm")]
)


def step(id: ResourceId = WEB, verb: Verb = Verb.UPDATE, **more: Any) -> Step:
    return Step(id, LXD, verb, "fields differ", Effect.LIVE, **more)


def wanted(id: ResourceId = WEB, **spec: Any) -> Desired:
    return Desired(id, LXD, {"power": "running", **spec})


def seen(want: Desired, power: Power = Power.RUNNING, *facts: Fact, applied: Any = None) -> World:
    one = Observed(want.id, LXD, want.spec, power, True, applied=applied or want.spec, conditions=facts)
    return World({LXD: Snapshot(LXD, 0.0, {want.id: one})})


def why(plan: Plan, want: Desired | None, world: World, rules: Rules) -> str | None:
    """Why its only step is held; None when it is carried out."""
    sorted_plan, held = sort_out(plan, {want.id: want} if want else {}, world, rules)
    (one,) = sorted_plan.steps
    assert (one.verb is Verb.HOLD) == bool(held)
    return held[one.id].reason if held else None


NOTHING = World({LXD: Snapshot(LXD, 0.0, {})})


@pytest.mark.parametrize(
    ("approve", "worst"),
    [({}, Effect.LIVE), ({"restart": True}, Effect.RESTART), ({"replace": True, "restart": False}, Effect.REPLACE)],
)
def test_the_worst_that_may_happen(approve: dict[str, bool], worst: Effect) -> None:
    assert worst_unattended(approve) is worst


def test_what_goes_needs_leave() -> None:
    gone = Plan("e", (step(verb=Verb.DELETE),))
    disk = Plan("e", (step(changes=(Change("remove", ("disks", "d"), {}, None, destroys=True),)),))
    for plan in (gone, disk):
        assert why(plan, wanted(), seen(wanted()), Rules()) == "NotApproved"
        assert why(plan, wanted(), seen(wanted(), applied={"x": 1}), Rules({"delete": True})) is None
    blocked = Plan("e", gone.steps, blocker=Problem("too many"))
    assert why(blocked, None, NOTHING, Rules({"delete": True})) == "DeletionGuard"


def test_suspended_nothing_happens() -> None:
    assert why(Plan("e", (step(),)), wanted(), NOTHING, Rules(act=False, why_not="x")) == "Suspended"


@pytest.mark.parametrize(
    ("environment", "own", "applied", "reason"),
    [
        ("heal", None, None, None),
        ("report", None, None, "DriftReported"),
        ("report", "heal", None, None),
        ("heal", "report", None, "DriftReported"),
        ("heal", "report", {"power": "running", "memory": 1}, None),  # the manifest is newer than the last apply
    ],
)
def test_drift_is_what_the_manifest_did_not_ask_for(
    environment: str, own: str | None, applied: Any, reason: str | None
) -> None:
    spec: dict[str, Any] = {"driftPolicy": own} if own else {}
    want = wanted(**spec)
    world = seen(want, applied=applied)
    assert why(Plan("e", (step(),)), want, world, Rules(drift=environment)) == reason


BY_GUEST, DIED = Fact("Ended", True, "ShutDownByGuest"), Fact("Ended", True, "Died")


@pytest.mark.parametrize(
    ("spec", "facts", "pause", "reason"),
    [
        ({}, (), 0.0, None),
        ({}, (), 3.0, "CrashLoop"),
        ({"restart": "never"}, (), 0.0, "Ended"),
        ({"lifetime": "session"}, (), 0.0, "Ended"),
        ({"lifetime": "session"}, (DIED,), 0.0, None),
        ({"lifetime": "always"}, (BY_GUEST,), 0.0, None),
        ({"restart": "on-failure"}, (), 0.0, None),
        ({"restart": "on-failure"}, (BY_GUEST,), 0.0, "Ended"),
        ({"restart": "always"}, (BY_GUEST,), 0.0, None),
        ({"restart": "never", "lifetime": "always"}, (BY_GUEST,), 0.0, None),
    ],
)
def test_a_guest_that_has_ended(spec: dict[str, str], facts: tuple[Fact, ...], pause: float, reason: str) -> None:
    want = wanted(VM, **spec)
    world = seen(want, Power.STOPPED, *facts)
    assert why(Plan("e", (step(VM),)), want, world, Rules(pause=lambda _id: pause)) == reason


def test_a_guest_that_is_to_run_from_now_on_has_not_ended() -> None:
    want = wanted(VM, restart="never")
    world = seen(want, Power.STOPPED, applied={**want.spec, "power": "stopped"})
    assert why(Plan("e", (step(VM),)), want, world, Rules()) is None


def test_steps_that_have_nothing_to_do_with_each_other_are_islands() -> None:
    steps = (
        step(NET),
        step(WEB, after=(NET,)),
        step(DB),
        step(VM, Verb.NOOP),
        step(ResourceId("Container", "a"), after=(WEB,)),
    )
    found = [{one.id.name for one in group} for group in islands(Plan("e", steps))]
    assert sorted(map(sorted, found)) == [["a", "n", "web"], ["db"]]


def test_what_backends_tell_comes_to_what_is_declared() -> None:
    host = wanted(ResourceId("VirtualMachine", "lab"), lxd=True)
    inner = Desired(ResourceId("Container", "in"), "lxd/lab", {})
    machine = Desired(host.id, "qemu", host.spec)
    image = Desired(ResourceId("Image", "i"), LXD, {})
    desired = {want.id: want for want in (wanted(), inner, machine, image)}
    assert told(LXD, {WEB, DB}, desired) == {WEB}
    assert told(LXD, None, desired) == {WEB, image.id}
    assert told(LXD, {ResourceId("Image", "*")}, desired) == {image.id}
    assert told("qemu", {host.id}, desired) == {host.id, inner.id}, "what is in a VM goes and comes with it"
    assert told("lxd/lab", {WEB}, desired) == set()


def test_a_network_takes_its_users_along_and_a_guest_its_ports() -> None:
    port = Desired(ResourceId("PortForward", "p"), LXD, {}, needs=(WEB,))
    desired = {NET: wanted(NET), WEB: Desired(WEB, LXD, {}, needs=(NET,)), port.id: port, DB: wanted(DB)}
    users = Bonds()
    for id, want in desired.items():
        users.put(id, want.needs)
    assert with_users([NET], users) == {NET, WEB}
    assert with_attachments([WEB], users) == {WEB, port.id}
    users.put(port.id, ())
    assert with_attachments([WEB], users) == {WEB}


def test_conditions_keep_since_when() -> None:
    board, want = Board(), wanted()
    world = seen(want)
    one = world.find(LXD, WEB)
    noop = Step(WEB, LXD, Verb.NOOP, "as declared")
    assert [fresh.type for fresh in board.put(WEB, of_step(noop, want, one, {}), 10.0)]
    assert board.put(WEB, of_step(noop, want, one, {}), 20.0) == []
    assert {since.since for since in board.of(WEB)} == {10.0} and board.status(WEB, "Ready")
    held = {WEB: Held("NotApproved", "no")}
    hold = Step(WEB, LXD, Verb.HOLD, "no")
    board.put(WEB, of_step(hold, want, one, held), 30.0)
    there = {since.condition.type: (since.condition.status, since.since) for since in board.of(WEB)}
    assert there == {
        "Ready": (False, 30.0),
        "Synced": (False, 30.0),
        "RestartPending": (False, 10.0),
        "Held": (True, 30.0),
    }
    assert board.count("Synced", False) == 1 and board.count("Synced", True) == 0
    down = seen(want, Power.STOPPED).find(LXD, WEB)
    board.put(WEB, of_step(noop, want, down, {}), 40.0)
    assert board.status(WEB, "Ready") is False and board.status(WEB, "Synced") is True
    assert board.count("Synced", True) == 1
    board.forget([WEB])
    assert board.count("Synced", True) == board.count("Held", False) == 0 and board.of(WEB) == []


def test_what_a_guest_has_not_got_is_not_as_declared() -> None:
    stick, web = ResourceId("Device", "stick"), seen(wanted()).find(LXD, WEB)
    lost = Change("add", ("devices", "device-stick"), None, {}, Effect.LIVE)
    other = Change("change", ("memory", "size"), 1, 2, Effect.LIVE)
    plugs = step(changes=(lost,))
    [ready, synced, held] = of_attachment(stick, [(plugs, web)], {})
    assert (ready.status, synced.status, held.status) == (False, False, False)
    assert synced.message == "Container/web: fields differ"
    why = {WEB: Held("Suspended", "moving house")}
    assert [one.reason for one in of_attachment(stick, [(replace(plugs, verb=Verb.HOLD), web)], why)] == [
        "Suspended"
    ] * 3
    assert of_attachment(stick, [(replace(plugs, changes=(other,)), web)], {}) == []
    assert of_attachment(stick, [(Step(WEB, LXD, Verb.NOOP, "as declared"), web)], {}) == []
    assert of_attachment(stick, [(Step(WEB, LXD, Verb.CREATE, "it does not exist"), None)], {})
