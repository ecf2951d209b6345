"""Memory is given and asked back while the guest runs; the guest moves it, so the guest's word counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu.backend import QemuBackend
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.sizing import BLOCK, Memory, memory_from, room_for
from reconciler.model import Desired, Effect, Verb
from tests.support.qemu import MIB, QUICK, Lab, lab_in

BOOT_ID = "/proc/sys/kernel/random/boot_id"
BASE, MOST = 256, 768


class Hasty(Lab):
    """A lab that does not wait long for a guest that stands still."""

    @property
    def backend(self) -> QemuBackend:
        return QemuBackend(self.settings, replace(QUICK, follow=1.0))


@pytest.fixture(scope="module")
def machine(images: Path) -> Iterator[Lab]:
    """A Linux VM with some memory and room for more, shared by the tests below."""
    with lab_in(images) as lab:
        lab.converge(_wanted(lab, BASE))
        yield lab


def _wanted(lab: Lab, size: float, **spec: Any) -> Desired:
    return lab.busybox(**{"memory": {"size": int(size * MIB), "max": MOST * MIB}, **spec})


def _step(lab: Lab, want: Desired) -> tuple[Verb, Effect]:
    step = lab.plan(want)[0].steps[0]
    return step.verb, step.effect


def _meminfo(lab: Lab, field: str) -> int:
    """In MiB."""
    return int(lab.inside("sed", "-n", f"s/^{field}: *\\([0-9]*\\) kB/\\1/p", "/proc/meminfo")) >> 10


def _comes(lab: Lab, field: str, least: int) -> int:
    """Once there is as much of it: what QEMU has given, the guest puts to use in its own time."""
    deadline = time.monotonic() + 120
    while (seen := _meminfo(lab, field)) < least:
        assert time.monotonic() < deadline, f"{field}: {seen} of {least} MiB"
        time.sleep(0.1)
    return seen


@pytest.mark.parametrize(
    ("declared", "fits"),
    [
        (256 * MIB, 256 * MIB),
        (256 * MIB - 1, 256 * MIB),  # QEMU's steps of 8 KiB
        (256 * MIB - 8192, 256 * MIB - 8192),
        (200_000_000, 200_007_680),
        (256 * MIB + 1, 256 * MIB + BLOCK),
        (257 * MIB, 258 * MIB),
        (258 * MIB, 258 * MIB),
        (258 * MIB + 1, 260 * MIB),
        (300_000_000, 256 * MIB + 16 * BLOCK),
    ],
)
def test_a_size_is_what_the_machine_makes_of_it(declared: int, fits: int) -> None:
    bare = Memory(256 * MIB, 512 * MIB)
    assert bare.fitting(declared) == fits
    assert bare.fitting(fits) == fits
    above, kept = max(0, fits - bare.base), min(fits, bare.base)
    there = replace(bare, plugged=above, kept=kept)
    assert there.in_words_of({"size": declared}) == {"size": declared}
    assert replace(there, kept=kept - 4096).in_words_of({"size": declared}) == {"size": fits - 4096}


@pytest.mark.parametrize(
    ("declared", "room", "seen"),
    [
        (768 * MIB, 512 * MIB, 768 * MIB),
        (767 * MIB, 512 * MIB, 767 * MIB),
        (768 * MIB, 256 * MIB, 512 * MIB),
        (768 * MIB, 0, None),
        (256 * MIB, 0, 256 * MIB),
        (200 * MIB, 0, 200 * MIB),
    ],
)
def test_the_most_is_seen_as_declared_when_there_is_as_much_room(declared: int, room: int, seen: int | None) -> None:
    memory = Memory(256 * MIB, room, 0, 256 * MIB)
    assert memory.in_words_of({"size": 256 * MIB, "max": declared}).get("max") == seen


def test_room_comes_in_whole_blocks() -> None:
    assert [room_for(most, 256 * MIB) for most in (1, 256 * MIB, 256 * MIB + 1, 261 * MIB)] == [0, 0, BLOCK, 3 * BLOCK]


def test_what_a_balloon_holds_is_not_the_guests() -> None:
    device = {"type": "virtio-mem", "data": {"max-size": 512, "size": 64, "requested-size": 128}}
    seen = memory_from({"base-memory": 256, "plugged-memory": 64}, [device], 200)
    assert (seen.size, seen.most, seen.requested) == (264, 768, 128)
    assert memory_from({"base-memory": 256}, [], None).size == 256


def test_it_grows_and_shrinks_without_a_restart(machine: Lab) -> None:
    machine.converge(_wanted(machine, BASE))
    boot, total = machine.inside("cat", BOOT_ID), _meminfo(machine, "MemTotal")
    assert _step(machine, _wanted(machine, 640)) == (Verb.UPDATE, Effect.LIVE)
    assert machine.converge(_wanted(machine, 640)) == [Verb.UPDATE]
    _comes(machine, "MemTotal", total + 384)  # all of it, so that nothing more comes while we look
    free = _meminfo(machine, "MemFree")
    assert machine.converge(_wanted(machine, BASE)) == [Verb.UPDATE]
    assert free - _meminfo(machine, "MemFree") > 300
    assert machine.inside("cat", BOOT_ID) == boot


def test_below_what_it_has_booted_with_the_rest_goes_into_a_balloon(machine: Lab) -> None:
    machine.converge(_wanted(machine, BASE))
    boot, free = machine.inside("cat", BOOT_ID), _meminfo(machine, "MemFree")
    assert machine.converge(_wanted(machine, 212)) == [Verb.UPDATE]
    assert free - _meminfo(machine, "MemFree") > 30
    assert machine.converge(_wanted(machine, 300)) == [Verb.UPDATE]
    _comes(machine, "MemFree", free + 1)
    assert machine.inside("cat", BOOT_ID) == boot


@pytest.mark.parametrize("size", [BASE + 0.3, BASE + 41.7, BASE - 11.1])
def test_an_odd_size_does_not_drift(machine: Lab, size: float) -> None:
    machine.converge(_wanted(machine, size))
    assert machine.look().spec["memory"]["size"] == int(size * MIB)


def test_outside_of_its_limits_it_takes_a_restart(machine: Lab) -> None:
    more = {"size": (MOST + 2) * MIB, "max": (MOST + 2) * MIB}
    assert _step(machine, _wanted(machine, 0, memory=more)) == (Verb.RESTART, Effect.RESTART)
    assert _step(machine, _wanted(machine, 40)) == (Verb.RESTART, Effect.RESTART)
    assert "can have 64 MiB to 768 MiB" in machine.changes(_wanted(machine, 40))[0].note


def test_what_the_guest_cannot_spare_is_not_asked_of_it(machine: Lab) -> None:
    machine.converge(_wanted(machine, BASE))
    problem = machine.fail(_wanted(machine, 100))
    assert problem.summary.startswith("memory.size: it is to give back 156 MiB, and has ")
    assert machine.look().spec["memory"]["size"] == BASE * MIB
    assert machine.inside("echo", "well") == "well"
    machine.converge(_wanted(machine, BASE))


def test_what_the_host_does_not_have_is_refused_while_the_guest_runs_on(machine: Lab) -> None:
    running = machine.process()
    problem = machine.fail(_wanted(machine, 0, memory={"size": BASE * MIB, "max": 1 << 60}))
    assert problem.summary.startswith("memory.max: this host has ")
    assert machine.process() == running


def test_what_is_left_to_others_stays(machine: Lab) -> None:
    machine.converge(_wanted(machine, 300))
    left = _wanted(machine, 400, ignore=["memory.size"], run=[{"command": ["true"], "when": "change"}])
    machine.converge(left)
    assert machine.look().spec["memory"]["size"] == 300 * MIB


def test_a_paused_guest_takes_none(machine: Lab) -> None:
    machine.converge(_wanted(machine, BASE))
    machine.converge(_wanted(machine, BASE, power="paused"))
    problem = machine.fail(_wanted(machine, 300, power="paused"))
    assert problem.summary == "memory.size: it changes only while the guest runs"
    machine.converge(_wanted(machine, 300))
    assert machine.look().spec["memory"]["size"] == 300 * MIB


def test_without_a_most_it_goes_down_and_back_up(linux: Lab) -> None:
    def wanted(size: int) -> Desired:
        return linux.busybox(memory={"size": size * MIB})

    linux.converge(wanted(BASE))
    boot = linux.inside("cat", BOOT_ID)
    assert linux.converge(wanted(220)) == [Verb.UPDATE]
    assert linux.converge(wanted(BASE)) == [Verb.UPDATE]
    assert linux.inside("cat", BOOT_ID) == boot
    assert _step(linux, wanted(BASE + 1)) == (Verb.RESTART, Effect.RESTART)
    assert _step(linux, _wanted(linux, BASE)) == (Verb.RESTART, Effect.RESTART)
    linux.converge(wanted(300))
    assert linux.inside("cat", BOOT_ID) != boot


@pytest.mark.proof
def test_a_guest_that_uefi_has_booted_follows_too(linux: Lab) -> None:
    def wanted(count: int, size: int) -> Desired:
        ready = {"guestAgent": True, "timeout": 160}
        return _wanted(linux, size, firmware="uefi", cpus={"count": count, "max": 2}, ready=ready)

    linux.timeout = 160.0  # UEFI takes its time where it is emulated
    linux.converge(wanted(1, 320))
    boot, total = linux.inside("cat", BOOT_ID), _meminfo(linux, "MemTotal")
    assert linux.converge(wanted(2, 512)) == [Verb.UPDATE]
    assert linux.inside("nproc") == "2"
    _comes(linux, "MemTotal", total + 150)
    assert linux.inside("cat", BOOT_ID) == boot


def test_a_guest_without_drivers_ends_as_a_problem_with_numbers_and_is_asked_again(lab: Lab) -> None:
    hasty = Hasty(lab.state)

    def wanted(size: int) -> Desired:
        return hasty.idle(memory={"size": size * MIB, "max": 128 * MIB})

    hasty.converge(wanted(64))
    for _ in range(2):
        assert hasty.fail(wanted(128)).summary == "memory.size: the guest took 0 of 64 MiB"
    assert hasty.look().spec["memory"] == {"size": 64 * MIB, "max": 128 * MIB}
    assert hasty.fail(wanted(40)).summary == "memory.size: the guest gave back 0 of 24 MiB"
    with Monitor(hasty.folder().qmp, "vm") as monitor:
        [device] = monitor.execute("query-memory-devices")
        assert device["data"]["requested-size"] == 0
    assert hasty.converge(wanted(64)) == [Verb.UPDATE]
