"""planning/, Shares, Devices and PortForwards: their steps, ports that are taken, and taking them out again."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from reconciler.effects import Rule
from reconciler.model import Condition, Desired, Effect, Observed, Plan, Power, ResourceId, Snapshot, Step, Verb, World
from reconciler.observation import read_listening
from reconciler.planning import PlanOptions, plan, plan_delete
from reconciler.problems import Problem
from tests.support.simulate import world_of

VM, WEB = ResourceId("VirtualMachine", "vm"), ResourceId("Container", "web")
SITE, HTTP = ResourceId("Share", "site"), ResourceId("PortForward", "http")
LXD = "lxd/local"
SHARE = {"source": "/srv", "readOnly": True, "path": "/mnt"}
FORWARD = {"listen": "127.0.0.1:8080", "port": 80, "protocol": "tcp"}
PROXY = {"type": "proxy", "listen": "tcp:127.0.0.1:8080", "connect": "tcp:127.0.0.1:80", "bind": "host"}
RULES = {
    "power": Rule(Effect.LIVE),
    "shares.*": Rule(Effect.LIVE),
    "forwards.**": Rule(Effect.LIVE),
    "devices.**": Rule(Effect.LIVE),
    "ghost": Rule(Effect.IMPOSSIBLE, "never"),
}
TABLES = {"qemu": {"VirtualMachine": RULES}, LXD: {"Container": RULES}}


def machine(**spec: Any) -> Desired:
    return Desired(VM, "qemu", {"power": "running", "deletionPolicy": "delete", **spec})


def container(**spec: Any) -> Desired:
    return Desired(WEB, LXD, {"power": "running", "deletionPolicy": "delete", **spec})


def share(*guests: ResourceId, **spec: Any) -> Desired:
    return Desired(SITE, "qemu", {"deletionPolicy": "delete", **spec}, guests)


def forward(guest: ResourceId) -> Desired:
    return Desired(HTTP, "qemu", {"deletionPolicy": "delete"}, (guest,))


def seen(like: Desired, *without: str, **more: Any) -> Observed:
    spec = {key: value for key, value in like.spec.items() if key not in ("power", *without)}
    fields = {"owned": True, "environment": "test", "applied": {**spec, "power": "running"}, **more}
    return Observed(like.id, like.backend, spec, fields.pop("power", Power.RUNNING), **fields)


def steps(*desired: Desired, world: World, **options: Any) -> dict[ResourceId, Step]:
    wanted = {one.id: one for one in desired}
    return {step.id: step for step in plan("test", wanted, world, TABLES, PlanOptions(**options)).steps}


WITH_SHARE = machine(shares={"site": SHARE})


def test_a_share_says_who_carries_it() -> None:
    both = (WITH_SHARE, container(devices={"share-site": {"type": "disk"}}), share(WEB, VM))
    found = steps(*both, world=world_of(seen(both[0]), backends=(LXD,)))
    assert (found[SITE].verb, found[SITE].reason) == (Verb.NOOP, "carried by Container/web, VirtualMachine/vm")


def test_a_share_of_a_held_guest_is_held() -> None:
    held = machine(shares={"site": SHARE}, ghost=1)
    found = steps(held, share(VM), world=world_of(seen(machine(ghost=2))))
    assert (found[SITE].verb, found[SITE].reason) == (Verb.HOLD, "VirtualMachine/vm is held")


def test_a_share_of_a_guest_whose_needs_are_held_is_held() -> None:
    image = Desired(ResourceId("Image", "i"), "qemu", {}, expects=(ResourceId("Host", "ghost"),))
    guest = Desired(VM, "qemu", WITH_SHARE.spec, (image.id,))
    assert steps(image, guest, share(VM), world=world_of(backends=("qemu",)))[SITE].verb is Verb.HOLD


def test_what_is_in_no_guest_is_held() -> None:
    found = steps(machine(), share(VM), world=world_of(seen(machine())))
    assert (found[SITE].verb, found[SITE].reason) == (Verb.HOLD, "VirtualMachine/vm has nothing of it")


def test_a_share_that_nobody_mounts_is_nothing_to_do() -> None:
    assert steps(share(), world=world_of(backends=("qemu",)))[SITE].verb is Verb.NOOP


def test_a_share_that_waits_says_so() -> None:
    bound = machine(shares={"site": SHARE}, updatePolicy="live")
    guest = seen(bound, "shares", rules={"shares.**": Rule(Effect.RESTART, "virtiofsd is missing")})
    found = steps(bound, share(VM), world=world_of(guest))
    assert (found[SITE].verb, found[SITE].reason) == (Verb.NOOP, "carried by VirtualMachine/vm, when it restarts")
    assert found[VM].waiting[0].note.endswith("virtiofsd is missing")


def test_what_is_said_of_a_share_itself_does_not_outlive_it() -> None:
    protected = share(VM, protect=True)
    assert steps(WITH_SHARE, protected, world=world_of(seen(WITH_SHARE)))[SITE].notes == ()
    found = steps(WITH_SHARE, protected, world=world_of(seen(WITH_SHARE, "shares")))
    assert found[SITE].notes == ("protect: only that of its guests counts",)


def test_only_a_share_brings_its_guests_along() -> None:
    found = steps(WITH_SHARE, container(), share(VM), world=world_of(backends=("qemu", LXD)), only=frozenset({SITE}))
    assert set(found) == {SITE, VM}


def listening(world: World, *sockets: tuple[str, str, int]) -> World:
    return World(world.snapshots, frozenset(sockets))


FORWARDED = machine(forwards={"http": FORWARD})


@pytest.mark.parametrize(
    ("listen", "held"),
    [
        (("tcp", "127.0.0.1", 8080), True),
        (("tcp", "0.0.0.0", 8080), True),
        (("tcp", "::", 8080), True),
        (("udp", "127.0.0.1", 8080), False),
        (("tcp", "127.0.0.2", 8080), False),
        (("tcp", "::1", 8080), False),
        (("tcp", "127.0.0.1", 8081), False),
    ],
)
def test_a_port_that_another_program_has_is_held(listen: tuple[str, str, int], held: bool) -> None:
    found = steps(FORWARDED, forward(VM), world=listening(world_of(seen(FORWARDED, "forwards")), listen))
    assert found[HTTP].verb is (Verb.HOLD if held else Verb.NOOP)
    if held:
        assert found[HTTP].reason == "127.0.0.1:8080 is taken by another program"
        assert [change.field for change in found[VM].waiting] == ["forwards.http"]
        assert not any(change.path[0] == "forwards" for change in found[VM].changes)


def test_the_guest_comes_up_without_a_port_that_is_taken() -> None:
    world = listening(world_of(backends=("qemu",)), ("tcp", "127.0.0.1", 8080))
    result = plan("test", {VM: FORWARDED, HTTP: forward(VM)}, world, TABLES, PlanOptions())
    assert [step.verb for step in result.steps] == [Verb.HOLD, Verb.CREATE]
    assert "forwards" not in result.adjusted[VM].spec and result.adjusted[VM].later is None


def test_a_guest_that_is_started_does_without_a_port_that_was_taken_meanwhile() -> None:
    stopped = seen(FORWARDED, power=Power.STOPPED)
    world = listening(world_of(stopped), ("tcp", "127.0.0.1", 8080))
    result = plan("test", {VM: FORWARDED, HTTP: forward(VM)}, world, TABLES, PlanOptions())
    fields = [(change.op, change.field) for step in result.steps for change in step.changes]
    assert fields == [("change", "power"), ("remove", "forwards.http")]


def test_a_port_that_moves_to_one_that_is_taken_stays_where_it_is() -> None:
    before = machine(forwards={"http": {**FORWARD, "listen": "127.0.0.1:8000"}})
    taken = ("tcp", "127.0.0.1", 8080)
    world = listening(world_of(seen(before)), taken)
    result = plan("test", {VM: FORWARDED, HTTP: forward(VM)}, world, TABLES, PlanOptions())
    assert [(step.verb, step.changes) for step in result.steps] == [(Verb.HOLD, ()), (Verb.NOOP, ())]
    assert result.adjusted[VM].spec["forwards"]["http"]["listen"] == "127.0.0.1:8000"


@pytest.mark.parametrize(
    "ours",
    [
        seen(FORWARDED),
        seen(container(devices={"port-other": PROXY})),
        seen(container(devices={"raw": PROXY}), owned=False, environment=None),
    ],
)
def test_what_our_own_guests_listen_on_is_no_other_program(ours: Observed) -> None:
    others = [] if ours.id == VM else [seen(FORWARDED, "forwards")]
    world = listening(world_of(ours, *others), ("tcp", "127.0.0.1", 8080))
    assert steps(FORWARDED, forward(VM), world=world)[HTTP].verb is Verb.NOOP


def test_a_containers_port_can_be_taken_too() -> None:
    web = container(devices={"port-http": PROXY})
    world = listening(world_of(seen(web, "devices")), ("tcp", "127.0.0.1", 8080))
    found = steps(web, forward(WEB), world=world)
    assert found[HTTP].verb is Verb.HOLD and [one.field for one in found[WEB].waiting] == ["devices.port-http"]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
def test_what_this_machine_listens_on_is_read(kind: socket.SocketKind, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as opened:
        opened.bind((address, 0))
        port = opened.getsockname()[1]
        protocol = "udp" if kind == socket.SOCK_DGRAM else "tcp"
        if protocol == "tcp":
            assert (protocol, address, port) not in read_listening()
            opened.listen()
        assert (protocol, address, port) in read_listening()
    assert (protocol, address, port) not in read_listening()


def deletion(*ids: ResourceId, world: World) -> Plan:
    return plan_delete("test", dict.fromkeys(ids), world, PlanOptions(), TABLES)


def test_deleting_a_share_takes_it_out_of_its_guests() -> None:
    web = container(devices={"share-site": {"type": "disk"}, "eth0": {"type": "nic"}})
    result = deletion(SITE, world=world_of(seen(WITH_SHARE), seen(web)))
    found = {step.id: step for step in result.steps}
    assert (found[SITE].verb, found[VM].verb, found[WEB].verb) == (Verb.NOOP, Verb.UPDATE, Verb.UPDATE)
    assert [(one.op, one.field, one.effect) for one in found[VM].changes] == [("remove", "shares.site", Effect.LIVE)]
    assert "shares" not in result.adjusted[VM].spec
    assert result.adjusted[WEB].spec["devices"] == {"eth0": {"type": "nic"}}
    assert found[SITE].reason == "is taken out of Container/web, is taken out of VirtualMachine/vm"


def test_deleting_a_share_leaves_the_guests_power_alone() -> None:
    result = deletion(SITE, world=world_of(seen(WITH_SHARE, power=Power.STOPPED)))
    assert result.adjusted[VM].spec["power"] == "stopped"
    assert [one.field for step in result.steps for one in step.changes] == ["shares.site"]


def test_guests_that_go_take_their_shares_along() -> None:
    result = deletion(SITE, VM, world=world_of(seen(WITH_SHARE)))
    assert [(step.id, step.verb, step.reason) for step in result.steps] == [
        (SITE, Verb.NOOP, "goes with VirtualMachine/vm"),
        (VM, Verb.DELETE, "asked for"),
    ]


def test_a_guest_that_is_kept_keeps_its_shares() -> None:
    retained = machine(shares={"site": SHARE}, deletionPolicy="retain")
    result = deletion(SITE, VM, world=world_of(seen(retained)))
    assert [step.verb for step in result.steps] == [Verb.NOOP, Verb.NOOP]
    assert result.steps[0].reason == "stays with VirtualMachine/vm, which is kept"


@pytest.mark.parametrize(
    ("guest", "verb", "reason"),
    [
        (None, Verb.NOOP, "it does not exist"),
        (
            seen(WITH_SHARE, environment="other"),
            Verb.HOLD,
            'VirtualMachine/vm has it: it belongs to environment "other"',
        ),
        (
            seen(WITH_SHARE, conditions=(Condition("Answering", False, "Silent", "no greeting"),)),
            Verb.HOLD,
            "VirtualMachine/vm is held",
        ),
    ],
)
def test_a_share_that_cannot_be_taken_out(guest: Observed | None, verb: Verb, reason: str) -> None:
    result = deletion(SITE, world=world_of(*([guest] if guest else []), backends=("qemu",)))
    step = next(step for step in result.steps if step.id == SITE)
    assert (step.verb, step.reason) == (verb, reason)


def test_where_nobody_answered_a_share_may_still_be() -> None:
    result = deletion(SITE, world=World({"qemu": Snapshot("qemu", 0.0, {}, Problem("no answer"))}))
    assert [(step.verb, step.reason) for step in result.steps] == [(Verb.HOLD, "not known: no answer")]
    elsewhere = World({"qemu": Snapshot("qemu", 0.0, {}), LXD: Snapshot(LXD, 0.0, {}, Problem("no answer"))})
    known = plan_delete("test", {SITE: "qemu"}, elsewhere, PlanOptions(), TABLES)
    assert [(step.verb, step.reason) for step in known.steps] == [(Verb.NOOP, "it does not exist")]


def test_a_share_that_may_only_leave_with_a_restart_waits_for_it() -> None:
    bound = machine(shares={"site": SHARE}, updatePolicy="live")
    guest = seen(bound, rules={"shares.**": Rule(Effect.RESTART)})
    result = deletion(SITE, world=world_of(guest))
    adjusted = result.adjusted[VM]
    assert adjusted.spec["shares"] == {"site": SHARE} and "shares" not in (adjusted.later or {})
    assert result.steps[0].reason == "leaves VirtualMachine/vm when it restarts"


def test_what_waited_before_goes_on_waiting_when_a_share_is_taken_out() -> None:
    later = {**WITH_SHARE.spec, "firmware": "uefi"}
    for rules in ({}, {"shares.**": Rule(Effect.RESTART)}):
        bound = machine(shares={"site": SHARE}, updatePolicy="live")
        adjusted = deletion(SITE, world=world_of(seen(bound, rules=rules, later=later))).adjusted[VM]
        assert adjusted.later is not None
        assert adjusted.later["firmware"] == "uefi" and "shares" not in adjusted.later


OTHER = ResourceId("VirtualMachine", "another")


def other_machine(**spec: Any) -> Desired:
    return Desired(OTHER, "qemu", {"power": "running", "deletionPolicy": "delete", **spec})


MOVABLE: list[tuple[str, dict[str, Any]]] = [
    ("disks", {"data": {"disk": "data", "format": "raw", "readOnly": False}}),
    ("devices", {"stick": {"usb": {"vendor": "1", "product": "2"}}}),
    ("forwards", {"http": FORWARD}),
]


@pytest.mark.parametrize(("part", "thing"), MOVABLE, ids=[row[0] for row in MOVABLE])
@pytest.mark.parametrize("there", [True, False])
def test_what_moves_leaves_the_one_guest_before_the_other_gets_it(
    part: str, thing: dict[str, Any], there: bool
) -> None:
    table = {"qemu": {"VirtualMachine": {**RULES, "disks.*": Rule(Effect.LIVE)}}}
    had, gets = machine(**{part: thing}), other_machine(**{part: thing})
    world = world_of(seen(had), *([seen(gets, part)] if there else []))
    result = plan("test", {VM: machine(), OTHER: gets}, world, table, PlanOptions())
    assert {step.id: step.after for step in result.steps} == {OTHER: (VM,), VM: ()}


def test_what_a_deleted_guest_had_is_given_away_after_it() -> None:
    world = world_of(seen(FORWARDED), seen(other_machine()))
    found = steps(other_machine(forwards={"renamed": FORWARD}), world=world, prune=True)
    assert found[VM].verb is Verb.DELETE and found[OTHER].after == (VM,)


def test_two_guests_that_exchange_things_do_not_wait_for_each_other() -> None:
    first, second = {"a": FORWARD}, {"b": {**FORWARD, "listen": "127.0.0.1:9090"}}
    world = world_of(seen(machine(forwards=first)), seen(other_machine(forwards=second)))
    found = steps(machine(forwards=second), other_machine(forwards=first), world=world)
    assert (found[OTHER].after, found[VM].after) == ((VM,), ())


def test_a_share_may_be_in_two_guests_at_once() -> None:
    world = world_of(seen(WITH_SHARE), seen(other_machine()))
    assert steps(machine(), other_machine(shares={"site": SHARE}), world=world)[OTHER].after == ()
