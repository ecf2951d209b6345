"""Killed at random, again and again, on the way to ever other states: the next apply always gets there, and only there.

A slice of it runs with every test run; ``./just soak 3000`` goes on for hours.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from reconciler.backends.lxd.backend import LxdBackend
from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Desired, Power, ResourceId
from tests.faults.kills import CYCLES, Killer, cycles
from tests.support.lxd import Lab as LxdLab
from tests.support.lxd import busybox_image
from tests.support.qemu import MIB, bare_qemu, holders, remains
from tests.support.qemu import Lab as QemuLab

VM = ResourceId("VirtualMachine", "vm")
DISK = {"size": MIB, "format": "qcow2", "readOnly": False}
FILE = "/etc/deep/file"
PAYLOAD = {"one": b"first\n", "two": b"second\n"}
NONE = 1 / 6
"""How often the next state is: it is not there at all."""
ENOUGH = 15
"""Of so many cycles one at least must have met its kill, or nothing was tried."""


def some_machine(lab: QemuLab, chance: random.Random) -> Desired | None:
    if chance.random() < NONE:
        return None
    power = chance.choice(["running", "running", "running", "stopped", "paused"])
    nics = {"eth0": {"type": "user", "model": "virtio-net-pci"}}
    return lab.idle(disks={"own": DISK}, power=power, nics=nics, cpuModel=chance.choice(["max", "qemu64", "Nehalem"]))


def qemus(lab: QemuLab) -> list[int]:
    """The QEMUs of that state folder: there must never be two."""
    found = []
    for pid in holders(lab.state):
        with suppress(OSError):
            if "qemu-system" in os.readlink(f"/proc/{pid}/exe"):
                found.append(pid)
    return found


def signalled(lab: QemuLab, number: signal.Signals) -> None:
    for pid in qemus(lab):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def own_disk(lab: QemuLab) -> int | None:
    """Its file, which must stay the same one for as long as there is a VM."""
    with suppress(FileNotFoundError):
        return lab.folder().disk("own", "qcow2").stat().st_ino
    return None


def we_are_killed(lab: QemuLab, killer: Killer, work: Callable[[], object]) -> None:
    killer.part_of(work)


def qemu_is_killed(lab: QemuLab, killer: Killer, work: Callable[[], object]) -> None:
    """Whatever it is in the middle of: its start, a question, its end."""
    with killer.beside(work) as moment:
        time.sleep(moment)
        before = len(qemus(lab))
        signalled(lab, signal.SIGKILL)
        killer.killed += before


def qemu_is_stopped(lab: QemuLab, killer: Killer, work: Callable[[], object]) -> None:
    """It is there, and says nothing: whoever takes it for gone starts a second one on the same disks."""
    signalled(lab, signal.SIGSTOP)
    try:
        killer.part_of(work)
        assert len(qemus(lab)) <= 1
    finally:
        signalled(lab, signal.SIGCONT)


@pytest.mark.timeout(120 + 30 * CYCLES)
@pytest.mark.parametrize("disturb", [we_are_killed, qemu_is_killed, qemu_is_stopped])
def test_a_machine_gets_there(
    machines: QemuLab, tmp_path: Path, disturb: Callable[[QemuLab, Killer, Callable[[], object]], None]
) -> None:
    lab, killer = machines, Killer(random.Random())
    with bare_qemu(tmp_path) as (stranger, _):
        for _, killer.chance in cycles(disturb.__name__):
            want, before = some_machine(lab, killer.chance), own_disk(lab)
            disturb(lab, killer, (lambda: lab.delete(VM)) if want is None else partial(lab.apply, want))
            assert len(qemus(lab)) <= 1
            if want is None:
                lab.delete(VM)
                assert remains(lab.state) == []
                continue
            lab.converge(want)
            assert len(qemus(lab)) == (want.spec["power"] != Power.STOPPED)
            assert before in (None, own_disk(lab)), "its disk is another one"
        assert stranger.poll() is None, "a QEMU that is not ours was touched"
    assert killer.killed or CYCLES < ENOUGH, killer.moments


def some_container(lab: LxdLab, name: str, chance: random.Random) -> Desired | None:
    if chance.random() < NONE:
        return None
    return lab.container(
        name,
        payload=PAYLOAD,
        power=chance.choice(["running", "running", "running", "stopped", "paused"]),
        memory={"size": chance.choice([64, 72, 80]) * MIB},
        config={"user.x": str(chance.randrange(9)), "limits.kernel.nofile": str(chance.choice([500, 600]))},
        files={FILE: {"sha256": chance.choice(sorted(PAYLOAD)), "mode": "0600", "owner": "3:4"}},
        run=[{"command": ["sh", "-c", "echo c >> /created"], "when": "create", "timeout": 60}],
        ready={"command": ["test", "-e", FILE], "timeout": 120},
    )


def in_a_process_of_its_own(lab: LxdLab, wanted: list[Desired]) -> Callable[[], object]:
    """What the killed process does. With connections of its own: those of this one are not to be shared."""

    def work() -> None:
        backend = LxdBackend(lab.backend.name, {"socket": str(lab.lxd.socket)}, lab.lxd.settings)
        LxdLab(lab.lxd, backend).apply(*wanted, prune=True)

    return work


@pytest.mark.timeout(120 + 30 * CYCLES)
def test_a_container_gets_there(containers: LxdLab) -> None:
    lab, killer = containers, Killer(random.Random())
    name, stranger = lab.lxd.name(), lab.lxd.name("s")
    body = {"name": stranger, "source": {"type": "image", "alias": "busybox"}, "config": {"user.mine": "yes"}}
    lab.client.post(("instances",), body, Deadline.after(120))
    untouched = lab.client.get("instances", stranger).etag
    image = busybox_image(lab)
    for _, killer.chance in cycles("container"):
        want = some_container(lab, name, killer.chance)
        wanted = [image, *([replace(want, needs=(image.id,))] if want else [])]
        killer.part_of(in_a_process_of_its_own(lab, wanted))
        lab.converge(*wanted, prune=True)
        there = {one["name"] for one in lab.client.get("instances", recursion="1").metadata}
        assert there == {stranger} | ({name} if want else set())
        if want and want.spec["power"] == Power.RUNNING:
            assert lab.inside(name, "cat", FILE).encode() == PAYLOAD[want.spec["files"][FILE]["sha256"]]
            # killed while the command ran it may run once more, and not more often
            assert lab.inside(name, "cat", "/created").split() in (["c"], ["c", "c"])
    assert lab.client.get("instances", stranger).etag == untouched, "a container that is not ours was touched"
    assert killer.killed or CYCLES < ENOUGH, killer.moments
