"""First boot to last word: what does not come up ends as a failure with its own words, and is taken up again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.backends.qemu import process, readiness
from reconciler.model import Power, ResourceId, Verb
from tests.support.qemu import MIB, Lab, holders

VM = ResourceId("VirtualMachine", "vm")
BLANK = {"size": MIB, "format": "raw", "readOnly": False}


def test_a_qemu_that_dies_at_once_leaves_its_words(lab: Lab) -> None:
    kernel = lab.state / "kernel"  # it looks like one, and QEMU does not take it
    kernel.write_bytes(b"MZ" + bytes(510))
    problem = lab.fail(lab.idle(boot={"kernel": str(kernel)}))
    assert "QEMU ended" in problem.summary
    assert "kernel" in str(problem.detail)
    assert holders(lab.state) == []
    assert lab.look().pending == "create"
    lab.converge(lab.idle())


def test_a_machine_that_does_not_exist(lab: Lab) -> None:
    problem = lab.fail(lab.idle(machine="pc-q35-99.9"))
    assert "pc-q35-99.9" in f"{problem}" or "machine" in f"{problem}"
    assert holders(lab.state) == []


def test_more_memory_than_there_is(lab: Lab) -> None:
    problem = lab.fail(lab.idle(memory={"size": 1 << 60}))
    assert problem.summary.startswith("memory: this host has ")
    assert holders(lab.state) == []


def test_nothing_to_boot_from(lab: Lab) -> None:
    problem = lab.fail(lab.machine("vm", disks={"root": BLANK}, guestAgent=False))
    assert problem.summary == "it does not boot: No bootable device"
    assert "not a bootable disk" in str(problem.detail)
    assert not any(sign in str(problem) for sign in ("\x1b", "[2J", "[0m"))
    assert lab.look().power is Power.STOPPED
    assert lab.verbs(lab.machine("vm", disks={"root": BLANK}, guestAgent=False)) == [Verb.UPDATE]


def test_a_kernel_that_panics(linux: Lab) -> None:
    boot = {
        "image": {"name": "busybox", "identity": "b" * 64},
        "commandLine": "rdinit=/nonexistent root=/dev/none panic=0",
    }
    problem = linux.fail(linux.busybox(boot=boot))
    assert problem.summary.startswith("it does not boot: Kernel panic - not syncing: VFS: Unable to mount root fs")
    assert "panic" in str(problem.detail)
    assert linux.look().power is Power.STOPPED
    linux.converge(linux.busybox())


def test_a_kernel_without_memory_is_told_to_have_more() -> None:
    assert "memory.max" in str(readiness.way_out("Kernel panic - not syncing: System is deadlocked on memory"))
    assert readiness.way_out("Kernel panic - not syncing: VFS: Unable to mount root fs") is None


def test_a_guest_that_is_never_ready(lab: Lab) -> None:
    want = lab.idle(ready={"log": "never said", "timeout": 0.5})
    problem = lab.fail(want)
    assert "did not become ready within 0.5 s" in problem.summary
    assert "idle: up" in str(problem.detail)
    assert lab.look().power is Power.RUNNING  # left as it is, for people to look at
    assert lab.verbs(want) == [Verb.UPDATE]
    lab.converge(lab.idle())


def test_a_guest_that_ends_while_it_is_waited_for(linux: Lab) -> None:
    want = linux.busybox(ready={"tcp": 9, "timeout": 40}, run=[])
    boot = {**want.spec["boot"], "commandLine": "rdinit=/bin/poweroff"}
    problem = linux.fail(replace(want, spec={**want.spec, "boot": boot}))
    assert "ended while it was starting" in problem.summary or "does not boot" in problem.summary


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file(lab: Lab, kind: str) -> None:
    path = lab.state / "thing"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    for read_only in (True, False):
        disk = {"path": str(path), "format": "raw", "readOnly": read_only}
        assert lab.fail(lab.idle(disks={"bad": disk})).summary.startswith(f"{path}: ")
    assert "not a regular file" in lab.fail(lab.machine("vm", boot={"kernel": str(path)})).summary


@pytest.mark.parametrize("what", ["image", "disk", "kernel"])
def test_what_is_referred_to_and_not_there(lab: Lab, what: str) -> None:
    wants = {
        "image": lab.busybox(),
        "disk": lab.idle(disks={"data": {"disk": "data", "format": "raw", "readOnly": False}}),
        "kernel": lab.machine("vm", boot={"kernel": str(lab.state / "none")}),
    }
    problem = lab.fail(wants[what])
    assert "there is no" in problem.summary or "No such file" in problem.summary
    assert holders(lab.state) == []


def test_the_log_of_a_boot_does_not_hold_the_one_before(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    lab.converge(replace(want, spec={**want.spec, "power": "stopped"}))
    blank = lab.machine("vm", disks={"root": BLANK}, guestAgent=False)
    problem = lab.fail(blank)
    assert "idle: up" not in str(problem.detail)


def test_no_qemu_installed(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab.idle()
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = lab.fail(lab.idle())
    assert problem.summary == "qemu-system-x86_64 is not installed"
    assert "apt-get install" in str(problem.hint)


def test_no_zombies_are_left_behind(lab: Lab) -> None:
    lab.fail(lab.idle(cpus={"count": 5000}))
    process.reap()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children]
    assert "Z" not in states
