"""planning/, what ``updatePolicy`` lets wait: what is done now, what the backend is handed, what ends the waiting."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from reconciler.effects import Rule, Table
from reconciler.execution import Job, execute
from reconciler.model import Condition, Desired, Effect, Observed, Plan, Power, ResourceId, Snapshot, Step, Verb
from reconciler.planning import PlanOptions, plan
from reconciler.ports import Tell
from reconciler.sockets import Socket
from tests.support.simulate import simulate, world_of

VM = ResourceId("VirtualMachine", "vm")
TABLE = {
    "VirtualMachine": {
        "power": Rule(Effect.LIVE),
        "memory.size": Rule(Effect.LIVE),
        "memory.max": Rule(Effect.RESTART, "QEMU takes it only when it starts"),
        "firmware": Rule(Effect.RESTART),
        "boot.image.**": Rule(Effect.REPLACE, "made anew"),
        "boot.commandLine": Rule(Effect.RESTART),
        "nics.*": Rule(Effect.LIVE, plugs=True),
        "nics.*.mac": Rule(Effect.LIVE),
        "nics.*.model": Rule(Effect.RESTART),
        "disks.*": Rule(Effect.LIVE, "plugged in and out"),
        "disks.*.disk": Rule(Effect.LIVE),
        "tpm": Rule(Effect.RESTART),
        "metadata.name": Rule(Effect.RESTART),
        "novel": Rule(Effect.IMPOSSIBLE, "never"),
    }
}


def want(policy: str | None = "live", **spec: Any) -> Desired:
    stated = {"updatePolicy": policy} if policy else {}
    return Desired(VM, "qemu", {"power": "running", "deletionPolicy": "delete", **stated, **spec})


def seen(like: Desired, without: str = "", **differs: Any) -> Observed:
    base = {key: value for key, value in like.spec.items() if key not in ("power", without)}
    more = {key: differs.pop(key) for key in list(differs) if key in Observed.__dataclass_fields__}
    fields = {"owned": True, "environment": "test", "applied": {**base, **differs, "power": "running"}, **more}
    return Observed(VM, "qemu", {**base, **differs}, fields.pop("power", Power.RUNNING), **fields)


def planned(desired: Desired, observed: Observed, allow: Effect | None = None) -> Plan:
    return plan("test", {VM: desired}, world_of(observed), {"qemu": TABLE}, PlanOptions(allow=allow))


def fields(result: Plan) -> tuple[str, str]:
    (step,) = result.steps
    return ", ".join(one.field for one in step.changes), ", ".join(one.field for one in step.waiting)


GROWN = want(memory={"size": 2, "max": 8}, firmware="uefi")
SMALL = seen(GROWN, memory={"size": 1}, firmware="bios")


def test_what_is_live_is_done_and_the_rest_waits() -> None:
    result = planned(GROWN, SMALL)
    assert fields(result) == ("memory.size", "memory.max, firmware")
    (step,) = result.steps
    assert (step.verb, step.effect) == (Verb.UPDATE, Effect.LIVE)
    words = "waits for a restart (updatePolicy: live); QEMU takes it only when it starts"
    assert [one.note for one in step.waiting] == [words, "waits for a restart (updatePolicy: live)"]


def test_the_backend_is_handed_what_is_to_be_so_now_and_what_comes_later() -> None:
    handed = planned(GROWN, SMALL).adjusted[VM]
    assert handed.spec == {**GROWN.spec, "memory": {"size": 2}, "firmware": "bios"}
    assert handed.later == GROWN.spec


def test_once_recorded_there_is_nothing_to_do_and_it_still_waits() -> None:
    first = planned(GROWN, SMALL)
    again = plan("test", {VM: GROWN}, simulate(first, {VM: GROWN}, world_of(SMALL)), {"qemu": TABLE}, PlanOptions())
    assert again.in_sync and again.complete and fields(again) == ("", "memory.max, firmware")
    assert again.steps[0].reason == "as declared, but for what waits"


def test_what_does_not_wait_any_more_is_taken_back_from_the_record() -> None:
    later = {**GROWN.spec, "firmware": "uefi"}
    bios = want(memory={"size": 1}, firmware="bios")
    (step,) = planned(bios, seen(bios, later=later)).steps
    assert (step.verb, [one.field for one in step.changes]) == (Verb.UPDATE, ["recorded"])


@pytest.mark.parametrize(
    ("policy", "allow", "expected"),
    [
        (None, None, ("firmware", "")),
        ("restart", None, ("firmware", "")),
        ("replace", None, ("firmware", "")),
        ("live", Effect.RESTART, ("firmware", "")),
        ("live", Effect.REPLACE, ("firmware", "")),
        ("live", None, ("recorded", "firmware")),
    ],
)
def test_how_far_it_goes(policy: str | None, allow: Effect | None, expected: tuple[str, str]) -> None:
    desired = want(policy, firmware="uefi")
    assert fields(planned(desired, seen(desired, firmware="bios"), allow)) == expected


def test_what_must_be_replaced_is_not_promised_for_the_next_start() -> None:
    desired = want(imagePolicy="follow", boot={"image": {"identity": "2"}}, firmware="uefi")
    observed = seen(desired, boot={"image": {"identity": "1"}}, firmware="bios")
    result = planned(desired, observed)
    assert fields(result) == ("recorded", "boot.image.identity, firmware")
    assert result.steps[0].waiting[0].note == "waits to be replaced (updatePolicy: live); made anew"
    later = result.adjusted[VM].later
    assert later is not None and later["firmware"] == "uefi" and later["boot"] == {"image": {"identity": "1"}}
    assert result.adjusted[VM].spec["firmware"] == "bios"


def test_protected_from_replacement_it_can_wait_for_it() -> None:
    desired = want("restart", imagePolicy="follow", boot={"image": {"identity": "2"}}, protect=True)
    (step,) = planned(desired, seen(desired, boot={"image": {"identity": "1"}})).steps
    assert step.verb is not Verb.HOLD and step.waiting


def test_a_thing_changes_as_a_whole_or_not_at_all() -> None:
    desired = want(nics={"a": {"mac": "2", "model": "e1000"}, "b": {"mac": "2", "model": "x"}})
    observed = seen(desired, nics={"a": {"mac": "1", "model": "x"}, "b": {"mac": "1", "model": "x"}})
    result = planned(desired, observed)
    assert fields(result) == ("nics.b.mac", "nics.a.mac, nics.a.model")
    assert {one.effect for one in result.steps[0].waiting} == {Effect.RESTART}
    assert result.adjusted[VM].spec["nics"]["a"] == {"mac": "1", "model": "x"}


def test_a_field_that_goes_waits_as_well() -> None:
    desired = want()
    observed = seen(desired, tpm=True)
    result = planned(desired, observed)
    assert fields(result) == ("recorded", "tpm")
    assert result.adjusted[VM].spec["tpm"] is True and "tpm" not in (result.adjusted[VM].later or {})


def test_going_down_because_the_manifest_says_so_does_not_wait() -> None:
    desired = want(firmware="uefi", power="stopped")
    (step,) = planned(desired, seen(desired, firmware="bios")).steps
    assert (step.verb, step.effect, step.waiting) == (Verb.UPDATE, Effect.STOP, ())


def test_a_stopped_guest_waits_for_nothing() -> None:
    assert fields(planned(GROWN, seen(GROWN, firmware="bios", power=Power.STOPPED)))[1] == ""


def test_a_crashed_guest_waits_for_nothing() -> None:
    assert fields(planned(GROWN, seen(GROWN, firmware="bios", power=Power.ERROR)))[1] == ""


def test_what_cannot_be_done_is_held_whatever_the_policy_says() -> None:
    desired = want(novel=1)
    (step,) = planned(desired, seen(desired, novel=2)).steps
    assert (step.verb, step.waiting) == (Verb.HOLD, ())


def test_a_renaming_that_may_not_happen_is_held_with_a_way_out() -> None:
    old = Observed(ResourceId("VirtualMachine", "old"), "qemu", {}, Power.RUNNING, True, environment="test", applied={})
    desired = Desired(VM, "qemu", {"updatePolicy": "live"}, renamed_from=old.id)
    (step,) = planned(desired, old).steps
    assert step.verb is Verb.HOLD and "--allow restart" in step.reason
    (lifted,) = planned(desired, old, Effect.RESTART).steps
    assert lifted.verb is Verb.RESTART


@pytest.mark.parametrize(
    ("room", "power", "effects"),
    [
        (None, Power.RUNNING, "live live live"),
        (3, Power.RUNNING, "live live live"),
        (2, Power.RUNNING, "live live restart"),
        (0, Power.RUNNING, "restart restart restart"),
        (0, Power.STOPPED, "live live live"),
    ],
)
def test_what_there_is_no_room_for_comes_with_a_restart(room: int | None, power: Power, effects: str) -> None:
    desired = want(None, nics={"a": {}, "b": {}, "c": {}})
    (step,) = planned(desired, seen(desired, "nics", room=room, power=power)).steps
    added = [one for one in step.changes if one.path[0] == "nics"]
    assert " ".join(one.effect for one in added) == effects
    if "restart" in effects:
        words = "all 2 free PCIe ports are taken" if room else "no PCIe port is free"
        assert added[-1].note == f"{words}: it gets more at its next start"


def test_with_a_policy_what_fits_is_plugged_in_and_the_rest_waits() -> None:
    desired = want(nics={"a": {}, "b": {}})
    result = planned(desired, seen(desired, "nics", room=1))
    assert fields(result) == ("nics.a", "nics.b")
    assert result.adjusted[VM].spec["nics"] == {"a": {}}


OWN = {"size": 1, "readOnly": False}


@pytest.mark.parametrize(
    ("disk", "destroys"),
    [(OWN, True), ({**OWN, "image": {"name": "i"}}, True), ({"disk": "data"}, False), ({"path": "/x"}, False)],
)
def test_a_disk_of_its_own_that_is_taken_out_goes_with_its_data(disk: dict[str, Any], destroys: bool) -> None:
    (step,) = planned(want(None), seen(want(None), disks={"d": disk})).steps
    assert (step.verb, step.effect, step.disruptive) == (Verb.UPDATE, Effect.LIVE, destroys)
    assert step.changes[0].note.startswith("its data is deleted; ") is destroys


def test_a_disk_of_its_own_that_becomes_another_goes_too() -> None:
    desired = want(None, disks={"d": {**OWN, "disk": "data"}})
    (step,) = planned(desired, seen(desired, disks={"d": OWN})).steps
    assert step.deletes and step.changes[0].destroys


@pytest.mark.parametrize("kept", [{"protect": True}, {"deletionPolicy": "retain"}])
@pytest.mark.parametrize("once", [True, False])
def test_data_is_kept_where_the_manifest_says_or_said_so(kept: dict[str, Any], once: bool) -> None:
    before, now = (want(None, **kept), want(None)) if once else (want(None), want(None, **kept))
    (step,) = planned(now, seen(before, disks={"d": OWN})).steps
    assert step.verb is Verb.HOLD
    assert 'its disk "d" would be deleted with its data' in step.reason and "first apply without" in step.reason


class Handed:
    """A backend that only notes what it is handed."""

    name = "qemu"

    def __init__(self) -> None:
        self.desired: list[Desired | None] = []

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        return Snapshot(self.name, 0.0, {})

    def effects(self) -> Table:
        return {}

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        self.desired.append(desired)

    def listening(self, id: ResourceId) -> frozenset[Socket]:
        return frozenset()

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        return ()

    def close(self) -> None:
        return None


def test_the_step_is_carried_out_with_what_may_happen_now() -> None:
    backend, result = Handed(), planned(GROWN, SMALL)
    execute(Job(result, {VM: GROWN}, world_of(SMALL), {"qemu": backend}))
    assert backend.desired == [result.adjusted[VM]]
    calm = planned(want(None), seen(want(None), pending="create"))
    execute(Job(calm, {VM: want(None)}, world_of(SMALL), {"qemu": backend}))
    assert backend.desired[1] == want(None)
