"""planning/following: ``port: auto``: what listens inside comes outside, and goes when it no longer listens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler import attachments
from reconciler.effects import Rule
from reconciler.model import Desired, Effect, Observed, Plan, Power, ResourceId, Verb, World
from reconciler.planning import PlanOptions, plan, plan_delete
from reconciler.planning.following import guests_followed
from reconciler.sockets import Socket, parse, split_listen
from tests.support.simulate import simulate, world_of

VM, WEB, HOST = ResourceId("VirtualMachine", "vm"), ResourceId("Container", "web"), ResourceId("Host", "vm")
DEV = ResourceId("PortForward", "dev")
RULES = {"power": Rule(Effect.LIVE), "forwards.**": Rule(Effect.LIVE), "devices.**": Rule(Effect.LIVE)}
TABLES = {name: {"VirtualMachine": RULES, "Container": RULES} for name in ("qemu", "lxd/local", "lxd/vm")}


def machine(**spec: Any) -> Desired:
    return Desired(VM, "qemu", {"power": "running", "deletionPolicy": "delete", **spec})


def container(backend: str = "lxd/local", **spec: Any) -> Desired:
    return Desired(WEB, backend, {"power": "running", "deletionPolicy": "delete", **spec})


def follow(target: ResourceId, *guests: ResourceId, **spec: Any) -> Desired:
    rules = {"allow": [(1024, 65535)], "deny": []}
    given = {"listen": "127.0.0.1", "port": "auto", "protocol": "tcp", "target": str(target), **rules, **spec}
    return Desired(DEV, "qemu", {"deletionPolicy": "delete", **given}, guests or (target,))


def seen(want: Desired, **spec: Any) -> Observed:
    has = {key: value for key, value in {**want.spec, **spec}.items() if key != "power"}
    return Observed(want.id, want.backend, has, Power.RUNNING, True, environment="test", applied={**want.spec, **spec})


def made(world: World, *desired: Desired) -> Plan:
    return plan("test", {one.id: one for one in desired}, world, TABLES, PlanOptions())


def hearing(world: World, guest: ResourceId, *sockets: Socket, listening: tuple[Socket, ...] = ()) -> World:
    return replace(world, heard={guest: frozenset(sockets)}, listening=frozenset(listening))


def changes(result: Plan, id: ResourceId) -> dict[str, tuple[Any, Any]]:
    [step] = [one for one in result.steps if one.id == id]
    return {change.field: (change.old, change.new) for change in step.changes}


def reason(result: Plan) -> str:
    return next(step.reason for step in result.steps if step.id == DEV)


def test_what_listens_in_a_container_is_forwarded_and_then_there_is_nothing_to_do() -> None:
    web = container()
    sockets = [("tcp", "0.0.0.0", 8080), ("tcp", "::", 3000), ("tcp", "127.0.0.1", 5000), ("tcp", "10.0.0.5", 6000)]
    sockets += [("tcp", "0.0.0.0", 22), ("udp", "0.0.0.0", 9000), ("tcp", "::1", 7000)]
    world = hearing(world_of(seen(web), backends=("qemu",)), WEB, *sockets)
    result = made(world, web, follow(WEB))
    proxy = {"type": "proxy", "listen": "tcp:127.0.0.1:8080", "connect": "tcp:127.0.0.1:8080", "bind": "host"}
    assert changes(result, WEB)["devices.port-dev-8080"] == (None, proxy)
    assert sorted(changes(result, WEB)) == [f"devices.port-dev-{port}" for port in (3000, 5000, 8080)]
    assert reason(result) == "Container/web: 3000, 5000, 8080"
    desired = {one.id: one for one in (web, follow(WEB))}
    after = replace(simulate(result, desired, world), heard=world.heard)
    assert made(after, web, follow(WEB)).in_sync
    gone = made(hearing(after, WEB, ("tcp", "::", 3000)), web, follow(WEB))
    assert sorted(changes(gone, WEB)) == ["devices.port-dev-5000", "devices.port-dev-8080"]
    assert not any(new for _, new in changes(gone, WEB).values())


def test_rules_say_which_ports() -> None:
    web = container()
    sockets = [("tcp", "0.0.0.0", port) for port in (80, 8080, 8081, 9000)]
    world = hearing(world_of(seen(web)), WEB, *sockets)
    result = made(world, web, follow(WEB, allow=[(80, 80), (8000, 8999)], deny=[(8081, 8081)]))
    assert sorted(changes(result, WEB)) == ["devices.port-dev-80", "devices.port-dev-8080"]


def test_a_port_that_another_program_of_this_machine_has_is_left_out_and_said() -> None:
    web, taken = container(), ("tcp", "127.0.0.1", 8080)
    sockets = [("tcp", "0.0.0.0", 8080), ("tcp", "0.0.0.0", 8081)]
    result = made(hearing(world_of(seen(web)), WEB, *sockets, listening=(taken,)), web, follow(WEB))
    assert sorted(changes(result, WEB)) == ["devices.port-dev-8081"]
    [step] = [one for one in result.steps if one.id == DEV]
    assert (step.verb, step.notes) == (Verb.NOOP, ("taken by another program: 8080",))


def test_a_container_inside_of_a_vm_has_both_hops() -> None:
    vm, web = machine(lxd=True, nics={"net": {}}), container("lxd/vm")
    world = hearing(world_of(seen(vm), seen(web)), WEB, ("tcp", "0.0.0.0", 8080))
    result = made(world, vm, web, follow(WEB, WEB, VM))
    [(_, forward)] = [both for field, both in changes(result, VM).items() if field == "forwards.dev-8080"]
    assert forward == {"listen": "127.0.0.1:8080", "port": attachments.passage("dev-8080"), "protocol": "tcp"}
    [(_, proxy)] = changes(result, WEB).values()
    assert (proxy["listen"], proxy["connect"]) == (f"tcp:0.0.0.0:{forward['port']}", "tcp:127.0.0.1:8080")


def test_of_a_vm_neither_its_own_loopback_nor_the_ways_into_its_containers() -> None:
    forwards = {"http": {"listen": "127.0.0.1:80", "port": 12345, "protocol": "tcp"}}
    vm = machine(lxd=True, nics={"net": {}}, forwards=forwards)
    sockets = [("tcp", "0.0.0.0", 12345), ("tcp", "::", 8443), ("tcp", "127.0.0.1", 6000), ("tcp", "10.0.2.15", 7000)]
    result = made(hearing(world_of(seen(vm)), VM, *sockets), vm, follow(VM))
    assert sorted(changes(result, VM)) == ["forwards.dev-7000"]


def test_what_does_not_run_yet_is_waited_for_and_what_keeps_silent_keeps_what_it_has() -> None:
    web = container()
    new = made(world_of(backends=("lxd/local",)), web, follow(WEB))
    [step] = [one for one in new.steps if one.id == DEV]
    assert (step.verb, step.awaits) == (Verb.HOLD, WEB)
    device = attachments.container_port("127.0.0.1:8080", 8080, "tcp")
    silent = made(world_of(seen(web, devices={"port-dev-8080": device})), web, follow(WEB))
    assert changes(silent, WEB) == {}
    assert reason(silent) == "Container/web does not say what listens in it"
    down = container(power="stopped")
    stopped = replace(seen(down), power=Power.STOPPED)
    assert made(world_of(stopped), down, follow(WEB)).in_sync


def test_deleting_it_takes_its_ports_out_and_no_others() -> None:
    web = container()
    ports = {
        f"port-{name}": attachments.container_port(f"127.0.0.1:{port}", port, "tcp")
        for name, port in {"dev-8080": 8080, "other": 9000, "dev-x": 9001}.items()
    }
    world = world_of(seen(web, devices=ports))
    result = plan_delete("test", {DEV: None}, world, PlanOptions(), TABLES)
    assert sorted(changes(result, WEB)) == ["devices.port-dev-8080"]


def test_only_guests_that_are_declared_are_asked() -> None:
    assert guests_followed([follow(WEB)]) == {}
    assert guests_followed([container(), follow(WEB)]) == {"lxd/local": {WEB}}


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", "80")), ("127.0.0.1", ("127.0.0.1", "")), ("[::1]:80", ("::1", "80")),
     ("[::1]", ("::1", ""))],
)  # fmt: skip
def test_an_address_with_and_without_a_port(text: str, parts: tuple[str, str]) -> None:
    assert split_listen(text) == parts


def test_the_kernels_tables() -> None:
    table = """  sl  local_address rem_address   st
   0: 00000000:1F90 00000000:0000 0A 0
   1: 0100007F:0016 00000000:0000 0A 0
   2: 0100007F:0050 0100007F:9999 01 0
"""
    assert list(parse(table, "tcp")) == [("tcp", "0.0.0.0", 8080), ("tcp", "127.0.0.1", 22)]
    six = "   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0"
    mapped = "   0: 0000000000000000FFFF00000100007F:0BB9 0:0 0A"
    assert list(parse(f"{six}\n{mapped}", "tcp")) == [("tcp", "::", 3000), ("tcp", "127.0.0.1", 3001)]
