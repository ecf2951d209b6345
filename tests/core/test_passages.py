"""planning/, a VM that runs and the containers in it: both hops, in which order, and who is looked at once more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler import attachments
from reconciler.effects import Rule
from reconciler.model import Desired, Effect, Observed, Plan, Power, ResourceId, Step, Verb, World
from reconciler.planning import PlanOptions, plan, plan_delete
from tests.support.simulate import simulate, world_of

VM, DEEP, SITE = ResourceId("VirtualMachine", "nest"), ResourceId("Container", "deep"), ResourceId("Share", "site")
INSIDE = "lxd/nest"
ANY = Rule(Effect.LIVE)
RULES = dict.fromkeys(("power", "shares.**", "disks.**", "forwards.**", "devices.**", "bootOrder"), ANY)
TABLES = {"qemu": {"VirtualMachine": {**RULES, "cpus": Rule(Effect.RESTART)}}, INSIDE: {"Container": RULES}}
SHARE = {"source": "/srv", "readOnly": True, "path": "/mnt/shares/site"}
FOLDER = {"type": "disk", "source": "/mnt/shares/site", "path": "/www"}
DISK = {"disk": "data", "mount": "/mnt/disks/data"}
DATA = {"type": "disk", "source": "/mnt/disks/data", "path": "/data"}


def machine(**spec: Any) -> Desired:
    return Desired(VM, "qemu", {"power": "running", "lxd": True, **spec})


def container(devices: dict[str, Any], **spec: Any) -> Desired:
    return Desired(DEEP, INSIDE, {"power": "running", **({"devices": devices} if devices else {}), **spec}, (VM,))


def seen(like: Desired, **more: Any) -> Observed:
    spec = {key: value for key, value in like.spec.items() if key != "power"}
    fields = {"owned": True, "environment": "test", "applied": like.spec, "needs": like.needs, **more}
    return Observed(
        like.id, like.backend, {**spec, **fields.pop("over", {})}, fields.pop("power", Power.RUNNING), **fields
    )


def planned(*desired: Desired, world: World) -> Plan:
    return plan("test", {one.id: one for one in desired}, world, TABLES, PlanOptions())


def steps(*desired: Desired, world: World) -> dict[ResourceId, Step]:
    return {step.id: step for step in planned(*desired, world=world).steps}


SHARED = machine(shares={"site": SHARE}), container({"share-site": FOLDER})
WHOLE = world_of(*(seen(one) for one in SHARED))


def test_what_comes_comes_from_the_vm_to_the_container() -> None:
    share = Desired(SITE, "qemu", {}, (DEEP, VM))
    found = steps(*SHARED, share, world=world_of(seen(machine()), seen(container({}))))
    assert found[DEEP].after == (VM,) and found[VM].after == ()
    assert found[SITE].reason == "carried by VirtualMachine/nest and Container/deep"


def test_what_goes_leaves_the_container_first() -> None:
    found = steps(machine(), container({}), world=WHOLE)
    assert found[VM].after == (DEEP,) and found[DEEP].after == ()


def test_deleting_a_share_takes_both_hops_out_and_the_containers_first() -> None:
    made = plan_delete("test", {SITE: None}, WHOLE, PlanOptions(), TABLES)
    found = {step.id: step for step in made.steps}
    assert [one.field for one in found[VM].changes] == ["shares.site"] and found[VM].after == (DEEP,)
    assert [one.field for one in found[DEEP].changes] == ["devices.share-site"]
    assert not attachments.observed(simulate(made, {}, WHOLE))


def test_a_container_that_goes_with_its_share_goes_first() -> None:
    found = {step.id: step for step in plan("test", {VM: machine()}, WHOLE, TABLES, PlanOptions(prune=True)).steps}
    assert found[DEEP].verb is Verb.DELETE and found[VM].after == (DEEP,)


def test_one_comes_and_another_goes_the_vm_has_what_comes_first() -> None:
    after = machine(shares={"new": SHARE}), container({"share-new": FOLDER})
    found = steps(*after, world=WHOLE)
    assert found[DEEP].after == (VM,) and found[VM].after == ()


def test_a_disk_goes_in_a_further_round_when_something_else_comes_with_it() -> None:
    before = machine(disks={"data": DISK}), container({"disk-data": DATA})
    world = world_of(*(seen(one) for one in before))
    first = planned(*SHARED, world=world)
    found = {step.id: step for step in first.steps}
    assert found[DEEP].after == (VM,) and found[VM].awaits == DEEP
    assert [one.field for one in found[VM].waiting] == ["disks.data"]
    assert first.adjusted[VM].spec["disks"] == {"data": DISK}
    between = simulate(first, {one.id: one for one in SHARED}, world)
    second = {step.id: step for step in planned(*SHARED, world=between).steps}
    assert second[VM].verb is Verb.UPDATE and second[DEEP].verb is Verb.NOOP and not second[VM].waiting


def test_what_else_of_the_vm_changes_does_not_wait_with_the_disk() -> None:
    before = machine(disks={"data": DISK}), container({"disk-data": DATA})
    after = machine(shares={"site": SHARE}, bootOrder=["root"]), SHARED[1]
    found = steps(*after, world=world_of(*(seen(one) for one in before)))
    assert [one.field for one in found[VM].waiting] == ["disks.data"]
    assert {one.field for one in found[VM].changes} == {"bootOrder", "shares.site"}


@pytest.mark.parametrize(
    "there", [{"shares": {"site": {}}}, {"shares": {}}, {"shares": {"site": {**SHARE, "source": "/old"}}}]
)
def test_what_the_vm_has_anew_is_looked_at_once_more_in_the_container(there: dict[str, Any]) -> None:
    found = steps(*SHARED, world=world_of(seen(SHARED[0], over=there), seen(SHARED[1])))
    assert found[VM].verb is Verb.UPDATE
    assert (found[DEEP].verb, found[DEEP].awaits) == (Verb.NOOP, VM)
    assert found[DEEP].notes == ("site: plugged in again where VirtualMachine/nest has it anew",)


def test_a_container_goes_down_with_its_vm_and_is_started_after_it() -> None:
    found = steps(machine(cpus=2, shares={"site": SHARE}), SHARED[1], world=WHOLE)
    assert found[VM].verb is Verb.RESTART
    assert (found[DEEP].verb, found[DEEP].awaits) == (Verb.HOLD, VM)
    new = steps(machine(cpus=2, shares={"site": SHARE}), SHARED[1], world=world_of(seen(SHARED[0]), backends=(INSIDE,)))
    assert (new[DEEP].verb, new[DEEP].after) == (Verb.CREATE, (VM,))
    resting = replace(SHARED[1], spec={**SHARED[1].spec, "power": "stopped"})
    world = world_of(seen(SHARED[0]), seen(resting, power=Power.STOPPED))
    assert steps(machine(cpus=2, shares={"site": SHARE}), resting, world=world)[DEEP].verb is Verb.NOOP


def test_a_vm_that_is_stopped_holds_what_is_in_it() -> None:
    off = replace(SHARED[0], spec={**SHARED[0].spec, "power": "stopped"})
    found = steps(off, SHARED[1], Desired(SITE, "qemu", {}, (DEEP, VM)), world=WHOLE)
    assert found[VM].verb is Verb.UPDATE
    assert (found[DEEP].verb, found[DEEP].reason) == (Verb.HOLD, "VirtualMachine/nest is stopped, as declared")
    assert found[SITE].verb is Verb.HOLD


FORWARD = {"listen": "127.0.0.1:8080", "port": 12000, "protocol": "tcp"}
PROXY = {"type": "proxy", "listen": "tcp:0.0.0.0:12000", "connect": "tcp:127.0.0.1:80", "bind": "host"}


@pytest.mark.parametrize(("taken", "held"), [(("tcp", "0.0.0.0", 12000), False), (("tcp", "127.0.0.1", 8080), True)])
def test_only_what_this_machine_listens_on_can_be_taken(taken: tuple[str, str, int], held: bool) -> None:
    both = machine(forwards={"web": FORWARD}), container({"port-web": PROXY})
    web = Desired(ResourceId("PortForward", "web"), "qemu", {}, (DEEP, VM))
    world = replace(world_of(seen(machine()), seen(container({}))), listening=frozenset({taken}))
    found = steps(*both, web, world=world)
    assert found[web.id].verb is (Verb.HOLD if held else Verb.NOOP)
    assert found[DEEP].verb is Verb.UPDATE and found[DEEP].waiting == ()


def test_the_port_of_a_container_in_a_vm_is_no_listener_of_this_machine() -> None:
    forwards = {"x": {**FORWARD, "port": 1}}
    local = Desired(ResourceId("VirtualMachine", "flat"), "qemu", {"power": "running", "forwards": forwards})
    inner = container({"raw": {**PROXY, "listen": "tcp:127.0.0.1:8080"}})
    world = world_of(seen(machine()), seen(inner), seen(replace(local, spec={"power": "running"})))
    world = replace(world, listening=frozenset({("tcp", "127.0.0.1", 8080)}))
    web = Desired(ResourceId("PortForward", "x"), "qemu", {}, (local.id,))
    assert steps(local, web, world=world)[web.id].reason == "127.0.0.1:8080 is taken by another program"


def test_both_hops_are_shown_as_the_one_thing_that_they_are() -> None:
    vm = machine(
        shares={"site": SHARE}, forwards={"web": FORWARD}, devices={"key": {"emulate": {"driver": "usb-ccid"}}}
    )
    key = {"type": "usb", "vendorid": "08e6", "productid": "4433", "mode": "0666"}
    deep = container({"share-site": {**FOLDER, "readonly": "true"}, "port-web": PROXY, "device-key": key})
    found = {str(one.id): one for one in attachments.observed([seen(vm), seen(deep)])}
    mount = {"target": "Container/deep", "path": "/www"}
    assert found["Share/site"].spec == {"source": "/srv", "readOnly": True, "mounts": [mount]}
    assert found["Share/site"].needs == (DEEP, VM)
    forward = {"listen": "127.0.0.1:8080", "protocol": "tcp", "port": 80, "target": "Container/deep"}
    assert found["PortForward/web"].spec == forward
    device = {"emulate": {"driver": "usb-ccid"}, "mode": "0666", "attachTo": "Container/deep"}
    assert found["Device/key"].spec == device


def test_a_vm_that_has_the_share_itself_is_one_of_its_mounts() -> None:
    vm, deep = machine(shares={"site": {**SHARE, "path": "/srv"}}), container({"share-site": FOLDER})
    (site,) = attachments.observed([seen(vm), seen(deep)])
    assert [mount["target"] for mount in site.spec["mounts"]] == ["Container/deep", "VirtualMachine/nest"]
