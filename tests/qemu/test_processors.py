"""CPUs come while the guest runs, and are counted when it uses them; those that cannot go wait for a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu.backend import QemuBackend
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.limits import check_processors
from reconciler.backends.qemu.plugging import Live, processors
from reconciler.backends.qemu.sizing import online, processors_from
from reconciler.model import Desired, Effect, Verb
from reconciler.problems import BackendError, Refused
from tests.support.qemu import MIB, QUICK, Lab, lab_in

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Hasty(Lab):
    """A lab that does not wait long for a guest that stands still."""

    @property
    def backend(self) -> QemuBackend:
        return QemuBackend(self.settings, replace(QUICK, follow=1.0))


@pytest.fixture(scope="module")
def machine(images: Path) -> Iterator[Lab]:
    """A Linux VM with one CPU and room for three, shared by the tests below: CPUs only ever come."""
    with lab_in(images) as lab:
        lab.converge(_wanted(lab, 1))
        yield lab


def _wanted(lab: Lab, count: int, **spec: Any) -> Desired:
    return lab.busybox(**{"cpus": {"count": count, "max": 3}, **spec})


def _effect(lab: Lab, want: Desired) -> Effect:
    return lab.plan(want)[0].steps[0].effect


def _live(lab: Lab, monitor: Monitor) -> Live:
    record = lab.record()
    assert record.applied is not None
    return Live(lab.folder(), monitor, record, record.applied, (), lambda _: None, booted=True)


@pytest.mark.parametrize(
    ("listed", "count"), [("0\n", 1), ("0-3\n", 4), ("0-1,3\n", 3), ("0,2-3,7-8\n", 5), ("0-127\n", 128), ("", 0)]
)
def test_linux_lists_its_cpus_in_ranges(listed: str, count: int) -> None:
    assert online(listed) == count


def _slots(born: int, plugged: int, free: int) -> list[dict[str, Any]]:
    """As QEMU tells of them: the last place first."""
    paths = [f"/machine/unattached/device[{n}]" for n in range(born)]
    paths += [f"/machine/peripheral/cpu-{born + n}" for n in range(plugged)]
    places = [*({"qom-path": path} for path in paths), *({} for _ in range(free))]
    props = [{"socket-id": n, "core-id": 0, "thread-id": 0} for n in range(len(places))]
    found = [{**place, "props": prop, "type": "max-x86_64-cpu"} for place, prop in zip(places, props, strict=True)]
    return found[::-1]


@pytest.mark.parametrize(
    ("born", "plugged", "free", "kvm", "limits"),
    [
        (1, 0, 2, True, (1, 3)),
        (1, 1, 1, True, (1, 3)),
        (1, 1, 1, False, (2, 3)),  # emulated ones do not go
        (2, 0, 0, True, (2, 2)),
        (1, 2, 0, False, (3, 3)),
    ],
)
def test_the_limits_of_a_machine(born: int, plugged: int, free: int, kvm: bool, limits: tuple[int, int]) -> None:
    found = processors_from(_slots(born, plugged, free), kvm)
    rule = found.rule()
    assert found.count == born + plugged
    assert [slot.number for slot in found.free] == list(range(born + plugged, born + plugged + free))
    assert [slot.id for slot in found.plugged] == [f"cpu-{born + n}" for n in range(plugged)]
    assert (rule.effect, rule.least, rule.most, rule.outside) == (Effect.LIVE, *limits, Effect.RESTART)


def test_one_more_is_in_use_without_a_restart(machine: Lab) -> None:
    before, boot = machine.look().spec["cpus"]["count"], machine.inside("cat", BOOT_ID)
    want = _wanted(machine, before + 1)
    assert _effect(machine, want) is Effect.LIVE
    assert machine.converge(want) == [Verb.UPDATE]
    assert machine.inside("nproc") == str(before + 1)
    assert machine.inside("cat", BOOT_ID) == boot
    assert [(one.type, one.status) for one in machine.look().conditions] == [("ProcessorsOnline", True)]


def test_one_that_the_guest_does_not_use_is_drift(machine: Lab) -> None:
    want = _wanted(machine, 3)
    # The guest brings new CPUs online by itself, too, in its own time: here it would only come in between.
    machine.inside("sh", "-c", "killall uevent; while pidof uevent >/dev/null; do usleep 100000; done")
    machine.converge(want)
    machine.inside("sh", "-c", "echo 0 >/sys/devices/system/cpu/cpu2/online")
    assert [(one.status, one.reason) for one in machine.look().conditions] == [(False, "Offline")]
    assert [(change.field, change.old, change.new) for change in machine.changes(want)] == [("cpus.count", 2, 3)]
    assert machine.converge(want) == [Verb.UPDATE]
    assert machine.inside("nproc") == "3"


def test_more_than_there_is_room_for_takes_a_restart_and_so_does_an_emulated_one_that_goes(machine: Lab) -> None:
    machine.converge(_wanted(machine, 3))
    assert _effect(machine, _wanted(machine, 4, cpus={"count": 4, "max": 4})) is Effect.RESTART
    assert _effect(machine, _wanted(machine, 2)) is Effect.RESTART


def test_more_than_qemu_takes_is_refused_while_the_guest_runs_on(machine: Lab) -> None:
    running = machine.process()
    problem = machine.fail(_wanted(machine, 1, cpus={"count": 1, "max": 288}))
    assert problem.summary == "cpus.max: QEMU does not take 288 with tcg"
    assert problem.detail is not None and "X2APIC" in problem.detail
    assert machine.process() == running


def test_so_many_are_taken_as_qemu_says() -> None:
    check_processors({"cpus": {"count": 65}, "machine": "q35"}, "tcg", "VirtualMachine/vm")
    with pytest.raises(Refused, match="does not take 289"):
        check_processors({"cpus": {"count": 289}, "machine": "q35"}, "tcg", "VirtualMachine/vm")


@pytest.mark.proof
def test_a_guest_lets_go_of_one(linux: Lab) -> None:
    """QEMU's emulation does not always survive it, which is why plans never ask it to: one guest of three has to."""
    assert any(_lets_go(linux) for _ in range(3))


def _lets_go(linux: Lab) -> bool:
    linux.converge(linux.idle(power="stopped"))
    linux.converge(_wanted(linux, 1))
    linux.converge(_wanted(linux, 2))
    try:
        with Monitor(linux.folder().qmp, "vm") as monitor:
            live = _live(linux, monitor)
            live.unplug("cpu-1")
            left = processors.look(live).count
    except BackendError:
        return False
    return left == 1 and linux.inside("nproc") == "1"


def test_a_restart_takes_one_out(linux: Lab) -> None:
    linux.converge(_wanted(linux, 1))
    linux.converge(_wanted(linux, 2))
    boot = linux.inside("cat", BOOT_ID)
    assert linux.converge(_wanted(linux, 1)) == [Verb.RESTART]
    assert (linux.inside("nproc"), linux.inside("cat", BOOT_ID) != boot) == ("1", True)


def test_without_an_agent_the_guest_is_on_its_own(lab: Lab) -> None:
    lab.converge(lab.idle(cpus={"count": 1, "max": 2}))
    assert lab.look().conditions == ()
    assert lab.converge(lab.idle(cpus={"count": 2, "max": 2})) == [Verb.UPDATE]
    [condition] = lab.look().conditions
    assert (condition.type, condition.status, condition.reason) == ("ProcessorsOnline", None, "NoAgent")
    assert "cpu-1" in condition.message


def test_an_agent_that_keeps_silent_is_a_problem_with_a_name_and_the_next_apply_tries_again(lab: Lab) -> None:
    hasty = Hasty(lab.state)
    silent: dict[str, Any] = {"guestAgent": True, "memory": {"size": 64 * MIB}}
    hasty.converge(hasty.idle(**silent, cpus={"count": 1, "max": 2}))
    want = hasty.idle(**silent, cpus={"count": 2, "max": 2})
    problem = hasty.fail(want)
    assert problem.summary.startswith("cpus.count: the guest agent did not answer")
    assert hasty.look().spec["cpus"]["count"] == 2
    assert hasty.verbs(want) == [Verb.UPDATE]
    assert hasty.fail(want).summary == problem.summary
