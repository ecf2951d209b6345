"""QEMUs that die, hang, or are not what they seem: what is not known is held, and nothing foreign is ever touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.backends.qemu import process, records
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.errands import machines
from reconciler.backends.qemu.observe import PATIENCE
from reconciler.model import Power, ResourceId, Result, Verb
from reconciler.problems import Refused, Unreachable
from tests.support.qemu import QUICK, Lab, bare_qemu, holders

VM = ResourceId("VirtualMachine", "vm")


def test_a_killed_qemu_is_seen_as_stopped_and_healed(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    first = lab.signal(signal.SIGKILL)
    assert lab.look().power is Power.STOPPED
    assert lab.folder().qmp.is_socket()  # the stale socket is still there, and does no harm
    assert lab.converge(want) == [Verb.UPDATE]
    assert lab.process() != first


def test_a_stopped_qemu_is_not_known_and_held_and_never_doubled(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    running = lab.signal(signal.SIGSTOP)
    try:
        seen = lab.look()
        assert [(one.type, one.status) for one in seen.conditions] == [("Answering", False)]
        assert seen.power is None
        assert lab.verbs(want) == [Verb.HOLD]
        assert [outcome.result for outcome in lab.delete(VM)] == [Result.HELD]
        with pytest.raises(Unreachable):
            lab.backend.power(VM, "restart", False, 1.0, lab.told.append)
        assert holders(lab.state) == [running.pid]
    finally:
        os.kill(running.pid, signal.SIGCONT)
    assert lab.verbs(want) == [Verb.NOOP]
    assert lab.process() == running


def test_a_stopped_qemu_can_be_ended_by_force(lab: Lab) -> None:
    lab.converge(lab.idle())
    lab.signal(signal.SIGSTOP)
    lab.backend.power(VM, "stop", True, 1.0, lab.told.append)
    assert lab.look().power is Power.STOPPED


def test_our_monitor_held_by_another_client_is_silence_not_absence(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    with Monitor(lab.folder().qmp, "intruder"):
        assert lab.verbs(want) == [Verb.HOLD]
    assert lab.verbs(want) == [Verb.NOOP]


def test_many_waiting_clients_are_silence_too(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    crowd = []
    try:
        for _ in range(40):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            crowd.append(client)
            try:
                client.connect(str(lab.folder().qmp))
            except BlockingIOError:
                break
        assert lab.verbs(want) == [Verb.HOLD]
    finally:
        for client in crowd:
            client.close()


def test_people_may_use_their_monitor_while_ours_is_used(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    with Monitor(lab.folder().people, "people") as people:
        assert people.execute("query-status")["running"]
        assert lab.verbs(want) == [Verb.NOOP]
        lab.converge(lab.idle(power="paused"))
        assert not people.execute("query-status")["running"]


def test_one_silent_vm_does_not_hold_up_the_others(lab: Lab) -> None:
    names = [f"vm{number}" for number in range(4)]
    lab.converge(*(lab.idle(name) for name in names))
    stopped = [lab.signal(signal.SIGSTOP, name) for name in names[:3]]
    try:
        began = time.monotonic()
        seen = {id.name: one.power for id, one in lab.backend.observe().resources.items()}
        assert seen == {"vm0": None, "vm1": None, "vm2": None, "vm3": Power.RUNNING}
        assert time.monotonic() - began < 3 * PATIENCE  # all at once, not one after the other
    finally:
        for one in stopped:
            os.kill(one.pid, signal.SIGCONT)


@contextmanager
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "6000"])
    try:
        yield child
        assert child.poll() is None, "the stranger was hit"
    finally:
        child.kill()
        child.wait()


def test_a_strangers_pid_in_the_record_is_never_signalled(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    lab.signal(signal.SIGKILL)
    with stranger() as other:
        start = int(Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19])
        record = lab.record()
        assert record.process is not None
        forged = records.Process(other.pid, start, record.process.boot)
        records.save(lab.folder(), record.but(process=forged))
        assert lab.look().power is Power.STOPPED
        with pytest.raises(Unreachable):
            process.kill(forged, record, 0.1)
        lab.backend.power(VM, "stop", True, 1.0, lab.told.append)
        lab.converge(want)
        assert lab.process().pid != other.pid
        lab.delete(VM)


def test_a_lost_pid_is_found_again(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    running = lab.process()
    records.save(lab.folder(), lab.record().but(process=None))
    assert lab.process() == running
    assert lab.converge(want) == [Verb.UPDATE]
    assert (lab.process(), lab.record().process) == (running, running)


def test_an_earlier_boot_of_the_host_proves_nothing(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    running = lab.process()
    old = records.Process(running.pid, running.started, "0" * 36)
    records.save(lab.folder(), lab.record().but(process=old))
    assert process.wait_gone(old, 0)  # that one is gone, whoever has its number now
    assert lab.process() == running
    lab.converge(want)
    assert lab.process() == running


def test_a_second_qemu_is_refused_whatever_the_record_says(lab: Lab) -> None:
    lab.converge(lab.idle())
    with pytest.raises(Refused, match="never a second one"):
        process.spawn(lab.folder(), ["/bin/true"], [], None)


def test_a_process_that_holds_the_vm_and_is_not_known_is_silence(lab: Lab) -> None:
    want = lab.idle(power="stopped")
    lab.converge(want)
    process.spawn(lab.folder(), ["/bin/sleep", "6000"], [], None)
    try:
        assert lab.verbs(want) == [Verb.HOLD]
    finally:
        for pid in holders(lab.state):
            os.kill(pid, signal.SIGKILL)


def test_another_qemu_on_its_socket_is_not_believed(lab: Lab, tmp_path: Path) -> None:
    want = lab.idle()
    lab.converge(want)
    ours = lab.folder().qmp.rename(lab.folder().qmp.with_suffix(".away"))
    with bare_qemu(tmp_path) as (_, other):
        other.rename(lab.folder().qmp)
        assert lab.verbs(want) == [Verb.HOLD]
    ours.rename(lab.folder().qmp)
    assert lab.verbs(want) == [Verb.NOOP]


def test_an_interrupted_start_leaves_no_qemu(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    want = lab.idle()
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "execute_and_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machines(lab.settings, QUICK).apply(lab.plan(want)[0].steps[0], want, lab.told.append)
    assert holders(lab.state) == []
    lab.converge(want)


def test_a_damaged_record_is_silence_and_nothing_is_done(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    running = lab.process()
    whole = lab.folder().record.read_bytes()
    lab.folder().record.write_bytes(whole[: len(whole) // 2])
    assert lab.verbs(want) == [Verb.HOLD]
    lab.folder().record.write_bytes(whole)
    assert lab.process() == running
    assert lab.verbs(want) == [Verb.NOOP]


def test_a_qemu_that_dies_while_it_is_asked(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    running = lab.signal(signal.SIGSTOP)
    killer = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {running.pid}"])
    assert lab.look().power is Power.STOPPED
    killer.wait()


def test_a_guest_that_resets_itself_is_as_wanted(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    with Monitor(lab.folder().people, "people") as people:
        people.execute("system_reset")
    assert lab.verbs(want) == [Verb.NOOP]


def test_a_guest_that_powers_off_is_started_again(linux: Lab) -> None:
    want = linux.busybox()
    linux.converge(want)
    running = linux.process()
    linux.ask("sh", "-c", "(sleep 0.2; poweroff -f) >/dev/null 2>&1 &")
    assert process.wait_gone(running, 120)
    assert linux.look().power is Power.STOPPED
    assert linux.converge(want) == [Verb.UPDATE]
