"""Disks, network cards and forwarded ports come and go under a Linux guest that runs; its boot id says that it did."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest

from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.plugging import Live, forwards
from reconciler.backends.qemu.records import load
from reconciler.model import Desired, Effect, Verb
from reconciler.problems import Refused
from tests.support.qemu import MIB, QUICK, Lab
from tests.support.unique import own_port

T = TypeVar("T")
USER = {"type": "user", "model": "virtio-net-pci"}
DISK = {"size": 4 * MIB, "format": "qcow2", "readOnly": False}


def but(want: Desired, **spec: Any) -> Desired:
    """The same VM with other fields; None takes one out."""
    new = {key: value for key, value in {**want.spec, **spec}.items() if value is not None}
    return replace(want, spec=new)


NODE = "/dev/$(grep -l data /sys/block/vd*/serial | cut -d/ -f4)"
"""In a script of the guest: its disk called data."""


@pytest.fixture
def linux(lasting: Lab) -> Lab:
    """One guest for all: each test begins by bringing it to where it wants it."""
    return lasting


def boot_id(lab: Lab) -> str:
    return lab.inside("cat", "/proc/sys/kernel/random/boot_id")


def until(look: Callable[[], object], wanted: object) -> None:
    """A guest takes a moment to notice what was plugged in; that it noticed in the end is what counts."""
    deadline = time.monotonic() + 60
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, f"{seen} is not {wanted}"
        time.sleep(0.1)


def serials(lab: Lab) -> dict[str, int]:
    """The guest's disks by serial number: bytes."""
    script = 'for d in /sys/block/vd*; do echo "$(cat $d/serial) $(cat $d/size)"; done'
    lines = lab.inside("sh", "-c", script).splitlines()
    return {words[0]: int(words[1]) * 512 for line in lines if len(words := line.split()) == 2}


def cards(lab: Lab) -> set[str]:
    """The addresses of the guest's network cards."""
    return set(lab.inside("sh", "-c", "cat /sys/class/net/e*/address 2>/dev/null; true").split())


def listens(port: int, protocol: str = "tcp") -> str:
    """A shell script for a guest that ends once somebody listens there."""
    return f"until grep -q ':{port:04X} 0' /proc/net/{protocol} /proc/net/{protocol}6; do usleep 50000; done"


def live(lab: Lab, want: Desired) -> None:
    """It is planned as live, done, and stays done."""
    step = next(step for step in lab.plan(want)[0].steps if step.id == want.id)
    assert (step.verb, step.effect) == (Verb.UPDATE, Effect.LIVE), step
    lab.converge(want)


def test_disks_come_grow_and_go(linux: Lab) -> None:
    vm = linux.busybox()
    linux.converge(vm)
    before = boot_id(linux)
    live(linux, but(vm, disks={"data": DISK}))
    until(lambda: serials(linux), {"data": 4 * MIB})
    linux.inside("sh", "-c", f"echo kept > {NODE}")
    live(linux, but(vm, disks={"data": {**DISK, "size": 8 * MIB}}))
    until(lambda: serials(linux), {"data": 8 * MIB})
    live(linux, but(vm, disks={"data": {**DISK, "size": 8 * MIB, "readOnly": True}}))
    until(lambda: linux.inside("sh", "-c", "cat /sys/block/vd?/ro 2>/dev/null; true"), "1")
    assert linux.inside("sh", "-c", f"head -c4 {NODE}") == "kept"
    live(linux, vm)
    until(lambda: serials(linux), {})
    assert linux.folder().disks() == []
    live(linux, but(vm, disks={"data": DISK}))  # of the same name, and not the same: nothing of the old one in it
    until(lambda: serials(linux), {"data": 4 * MIB})
    assert linux.inside("sh", "-c", f"head -c4 {NODE} | od -An -tx1") == "00 00 00 00"
    assert boot_id(linux) == before


def test_a_disk_resource_is_attached_and_detached_and_keeps_its_data(linux: Lab) -> None:
    disk = linux.desired("Disk", "data", {"size": MIB, "format": "raw", "deletionPolicy": "retain"})
    vm = linux.busybox()
    linux.converge(disk, vm)
    before = boot_id(linux)
    attached = but(vm, disks={"data": {"disk": "data", "format": "raw", "readOnly": False}})
    live(linux, replace(attached, needs=(disk.id,)))
    until(lambda: serials(linux), {"data": MIB})
    linux.inside("sh", "-c", f"echo kept > {NODE} && sync")
    live(linux, vm)
    path, _ = linux.backend.settings.state / "disks", None
    assert next(path.glob("data.raw")).read_bytes()[:4] == b"kept"
    assert boot_id(linux) == before


def descriptors(lab: Lab) -> int:
    """How many sets of descriptors QEMU has from us."""
    with Monitor(lab.folder().people, "vm") as monitor:
        return len(monitor.execute("query-fdsets"))


def test_a_disk_that_qemu_does_not_take_leaves_nothing_in_it(linux: Lab) -> None:
    disk = linux.desired("Disk", "worn", {"size": MIB, "format": "qcow2", "deletionPolicy": "retain"})
    vm = linux.busybox()
    linux.converge(disk, vm)
    before, file = descriptors(linux), linux.state / "disks" / "worn.qcow2"
    with file.open("r+b") as written:
        written.seek(79)
        written.write(b"\2")  # as QEMU marks one that it has found to be broken
    attached = replace(
        but(vm, disks={"data": {"disk": "worn", "format": "qcow2", "readOnly": False}}), needs=(disk.id,)
    )
    assert "corrupt" in str(linux.fail(attached))
    assert descriptors(linux) == before
    with file.open("r+b") as written:
        written.seek(79)
        written.write(b"\0")
    linux.converge(attached)
    until(lambda: serials(linux), {"data": MIB})
    linux.converge(vm)
    assert descriptors(linux) == before


def test_cards_come_change_and_go(linux: Lab) -> None:
    vm = linux.busybox()
    linux.converge(vm)
    before = boot_id(linux)
    one, two = "52:54:00:00:00:01", "52:54:00:00:00:02"
    live(linux, but(vm, nics={"a": {**USER, "mac": one}}))
    until(lambda: cards(linux), {one})
    live(linux, but(vm, nics={"a": {**USER, "mac": two}, "b": {"type": "user", "model": "e1000e", "mac": one}}))
    until(lambda: cards(linux), {one, two})
    live(linux, vm)
    until(lambda: cards(linux), set())
    assert boot_id(linux) == before


def test_ports_are_forwarded_into_the_guest(linux: Lab) -> None:
    vm = linux.busybox(nics={"lan": USER})
    linux.converge(vm)
    before, port = boot_id(linux), own_port()
    until(lambda: "10.0.2.15" in linux.inside("ip", "addr"), True)
    linux.inside("sh", "-c", f"nc -ll -p 80 -e uname >/dev/null 2>&1 & {listens(80)}")
    forward = {"web": {"listen": f"127.0.0.1:{port}", "port": 80, "protocol": "tcp"}}
    live(linux, but(vm, forwards=forward))
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.settimeout(60)
        assert sock.recv(16) == b"Linux\n"
    udp = {"dns": {"listen": f"127.0.0.1:{port}", "port": 53, "protocol": "udp"}}
    live(linux, but(vm, forwards=udp))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    live(linux, vm)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))  # nobody has it any more
    assert boot_id(linux) == before


def test_forwards_come_back_after_a_restart_and_after_strange_hands(lab: Lab) -> None:
    port = own_port()
    forward = {"web": {"listen": f"127.0.0.1:{port}", "port": 80, "protocol": "tcp"}}
    vm = lab.idle(nics={"lan": USER}, forwards=forward)
    lab.converge(vm)
    with Monitor(lab.folder().people, "vm") as monitor:
        forwards.ask(monitor, f"hostfwd_remove net-lan tcp:127.0.0.1:{port}")
    assert [change.field for change in lab.changes(vm)] == ["forwards.web"]
    lab.converge(vm)
    lab.backend.power(vm.id, "restart", True, 5, lambda _: None)
    socket.create_connection(("127.0.0.1", port), 60).close()


def test_a_port_that_is_taken_is_named_and_all_else_is_done(lab: Lab) -> None:
    vm = lab.idle(nics={"lan": USER})
    lab.converge(vm)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        forward = {"web": {"listen": f"127.0.0.1:{port}", "port": 80, "protocol": "tcp"}}
        problem = lab.fail(but(vm, forwards=forward))
        assert f"forwards.web: 127.0.0.1:{port} cannot be had" in problem.summary
    lab.converge(but(vm, forwards=forward))  # now it is free


def test_forwards_need_a_way_in(lab: Lab) -> None:
    forward = {"web": {"listen": "127.0.0.1:1", "port": 80, "protocol": "tcp"}}
    assert "no NIC to forward through" in lab.fail(lab.idle(forwards=forward)).summary
    six = {"web": {**forward["web"], "listen": "[::1]:1"}}
    assert "IPv4 addresses only" in lab.fail(lab.idle(nics={"lan": USER}, forwards=six)).summary


def test_a_guest_that_does_not_let_go_is_a_problem_and_no_hang(lab: Lab) -> None:
    disks = {"data": DISK}
    vm = lab.idle(disks=disks)
    lab.converge(vm)
    lab.grace = replace(QUICK, device=1.0)  # a guest that never will
    problem = lab.fail(lab.idle())
    assert "disk-data: the guest did not let go of it within" in problem.summary
    assert lab.verbs(lab.idle()) == [Verb.UPDATE]  # not forgotten
    lab.converge(vm)  # wanted again, and never gone


def test_the_boot_order_changes_under_a_guest(lab: Lab) -> None:
    lab.idle()
    root = {"path": str(lab.state / "idle.img"), "format": "raw", "readOnly": True}
    blank = {"size": MIB, "format": "raw", "readOnly": False}
    want = but(lab.idle(), disks={"root": root, "blank": blank}, bootOrder=["root", "blank"])
    lab.converge(want)
    swapped = but(want, bootOrder=["blank", "root"])
    live(lab, swapped)
    said = lab.serial()
    with Monitor(lab.folder().people, "vm") as monitor:
        monitor.execute_and_wait("system_reset", ["RESET"], 60)
    until(lambda: "No bootable device" in lab.serial()[len(said) :], True)
    live(lab, want)


def is_about(id: str, event: Mapping[str, Any]) -> bool:
    return bool(event["data"].get("device") == id)


def test_what_somebody_unplugged_comes_back(linux: Lab) -> None:
    vm = linux.busybox(disks={"data": DISK}, nics={"lan": USER})
    linux.converge(vm)
    before = boot_id(linux)
    with Monitor(linux.folder().people, "vm") as monitor:
        for id in ("disk-data", "nic-lan"):
            mine = partial(is_about, id)
            monitor.execute_and_wait("device_del", ["DEVICE_DELETED"], 60, {"id": id}, mine)
    assert {change.field for change in linux.changes(vm)} == {"disks.data", "nics.lan"}
    linux.converge(vm)
    until(lambda: serials(linux), {"data": 4 * MIB})
    until(lambda: len(cards(linux)), 1)
    assert boot_id(linux) == before


def test_what_has_just_gone_by_itself_is_gone(linux: Lab) -> None:
    vm = linux.busybox(devices={"pen": {"emulate": {"driver": "usb-tablet"}}})
    linux.converge(vm)
    folder = linux.folder()
    record = load(folder)
    assert record is not None
    with Monitor(folder.qmp, "vm") as monitor:
        machine = Live(folder, monitor, record, vm.spec, (), linux.told.append, booted=True)
        assert "device-pen" in machine.present()
        mine = partial(is_about, "device-pen")
        monitor.execute_and_wait("device_del", ["DEVICE_DELETED"], 60, {"id": "device-pen"}, mine)
        machine.unplug("device-pen")
        assert "device-pen" not in machine.present()


def test_more_than_the_machine_has_room_for_is_said_before(lab: Lab) -> None:
    vm = lab.idle()
    lab.converge(vm)
    room = lab.look(vm).room
    assert room is not None
    nics = {f"n{number}": USER for number in range(room + 1)}
    step = lab.plan(but(vm, nics=nics))[0].steps[0]
    assert step.verb is Verb.RESTART
    lab.converge(but(vm, nics=nics))
    assert (lab.look(vm).room or 0) >= 6


@pytest.mark.parametrize("said", ["", "Hub -1 (net-lan):\n"])
def test_no_forwards_are_none(said: str) -> None:
    assert not any(forwards.forwards(said).values())


def test_a_forward_in_words_that_are_none_of_ours_is_refused() -> None:
    with pytest.raises(Refused):
        forwards.check({"nics": {"lan": USER}, "forwards": {"x": {"listen": "127.0.0.1 x:80", "port": 1}}}, "vm")
