"""OBSERVE, told: what happens to a QEMU that runs is heard at once, after a gap is looked at, and never floods us."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.backends.qemu import process
from reconciler.backends.qemu.backend import QemuBackend
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.watching import OFTEN, POLL
from reconciler.model import Power, ResourceId, Verb
from reconciler.watch.inbox import Flag
from tests.support.qemu import Lab

VM = ResourceId("VirtualMachine", "vm")
PATIENCE = 30.0


class Told:
    """What a backend that is watched has said."""

    def __init__(self, backend: QemuBackend) -> None:
        self.wakes: queue.SimpleQueue[Collection[ResourceId] | None] = queue.SimpleQueue()
        self.stop = Flag()
        self.thread = threading.Thread(target=backend.watch, args=(self.wakes.put, self.stop))
        self.thread.start()

    def until_told(self) -> None:
        """The VM is to be looked at."""
        told = self.wakes.get(timeout=PATIENCE)
        assert told is not None and VM in told

    def count(self) -> int:
        """How often something more was told by now."""
        often = 0
        while not self.wakes.empty():
            self.wakes.get()
            often += 1
        return often


@contextmanager
def told(lab: Lab) -> Iterator[Told]:
    """A watch of the lab's VMs."""
    backend = lab.backend
    found = Told(backend)
    try:
        yield found
    finally:
        found.stop.set()
        found.thread.join(PATIENCE)
        found.stop.close()
        backend.close()


def people(lab: Lab, *commands: str) -> None:
    """Somebody else uses the monitor for people."""
    with Monitor(lab.folder().people, "people") as monitor:
        for command in commands:
            monitor.execute(command)


def test_what_others_do_is_told_and_so_is_the_end(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    with told(lab) as watch:
        watch.until_told()  # it listens from now on, and has heard nothing of before
        people(lab, "stop")
        watch.until_told()
        assert lab.converge(want)
        watch.until_told()
        process.kill(lab.process(), lab.record())
        watch.until_told()


def test_who_could_not_listen_looks_once_it_can(lab: Lab) -> None:
    lab.converge(lab.idle())
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(lab.folder().events))
        assert other.recv(4096)  # greeted: QEMU hears nobody else meanwhile
        with told(lab) as watch:
            people(lab, "stop")
            assert watch.wakes.empty()
            other.close()
            watch.until_told()


def test_a_guest_that_makes_events_without_end_costs_little(lab: Lab) -> None:
    lab.converge(lab.idle())
    with told(lab) as watch:
        watch.until_told()
        began = time.monotonic()
        people(lab, *["stop", "cont"] * 100)
        people(lab, "stop")
        watch.until_told()
        often = 1 + watch.count()
        assert often <= (OFTEN + 1) * ((time.monotonic() - began) / POLL + 1)
        people(lab, "cont")
        watch.until_told()  # late perhaps, and not never


def test_a_machine_of_before_there_was_such_a_monitor_is_told_by_its_end(lab: Lab) -> None:
    lab.converge(lab.idle())
    lab.folder().events.unlink()
    with told(lab) as watch:
        process.kill(lab.process(), lab.record())
        watch.until_told()


@pytest.mark.proof
def test_a_guest_whose_disk_has_no_room_waits_and_goes_on_with_nothing_lost(linux: Lab, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(place)], check=True)
    try:
        with (place / "data.raw").open("wb") as file:
            file.truncate(8 << 20)
        want = linux.busybox(disks={"data": {"path": str(place / "data.raw"), "format": "raw"}})
        linux.converge(want)
        running = linux.process()
        with told(linux) as watch:
            watch.until_told()
            linux.ask("sh", "-c", "(yes | head -c 4194304 >/dev/vda; sync; touch /done) >/dev/null 2>&1 &")
            while linux.look().power is not Power.PAUSED:
                watch.until_told()
        assert ("Disks", False, "IoError") in {(one.type, one.status, one.reason) for one in linux.look().conditions}
        subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
        assert linux.converge(want) == [Verb.UPDATE]
        assert linux.process() == running
        linux.inside("sh", "-c", "while ! [ -e /done ]; do sleep 0.1; done")
        assert (place / "data.raw").read_bytes()[: 4 << 20] == b"y\n" * (2 << 20)
        linux.delete(want.id)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
