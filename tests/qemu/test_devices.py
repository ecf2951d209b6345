"""Devices in running guests: plugged in, out, and in again, by the guest's own word and with its boot id unchanged."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import rights
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.emulation import DRIVERS, device_of
from reconciler.model import Desired, Effect, Result, Verb
from reconciler.problems import Refused
from reconciler.resolution.through import EMULATED
from tests.support.qemu import MIB, QUICK, Lab

TABLET, LINE = {"emulate": {"driver": "usb-tablet"}}, {"emulate": {"driver": "usb-serial", "serial": "A1"}}
EDU = {"emulate": {"driver": "edu"}}
TABLET_ID, LINE_ID, STICK_ID, EDU_ID = "0627:0001", "0403:6001", "46f4:0001", "1234:11e8"
ABSENT = {"usb": {"vendor": "dead", "product": "beef"}}
_USB = "for one in /sys/bus/usb/devices/*-*; do cat $one/idVendor $one/idProduct 2>/dev/null | paste -sd : -; done"
_PCI = "for one in /sys/bus/pci/devices/*; do cat $one/vendor $one/device | sed s/0x// | paste -sd : -; done"


def busybox(lab: Lab, devices: Mapping[str, Any], **spec: Any) -> Desired:
    return lab.busybox(devices=dict(devices), **spec)


@pytest.fixture
def linux(lasting: Lab) -> Lab:
    """One guest for all: each test begins by bringing it to where it wants it."""
    return lasting


def boot_id(lab: Lab) -> str:
    return lab.inside("cat", "/proc/sys/kernel/random/boot_id")


def until(lab: Lab, script: str) -> str:
    """What the guest says once a script of its shell ends well."""
    return lab.inside("/bin/sh", "-c", f"until {{ {script}; }} 2>/dev/null; do usleep 100000; done")


def sees(lab: Lab, id: str, wanted: bool = True, bus: str = _USB) -> bool:
    """Whether the guest comes to see it, or to see it no more; it looks at its buses in its own time."""
    test = f"{{ {bus}; }} | grep -q {id}" if wanted else f"! {{ {bus}; }} | grep -q {id}"
    until(lab, test)
    return True


def people(lab: Lab, command: str, **arguments: Any) -> Any:
    """What somebody else does behind our back."""
    with Monitor(lab.folder().people, "people") as monitor:
        return monitor.execute(command, arguments)


def eventually(test: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not (done := test()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return done


def waiting(lab: Lab) -> list[str]:
    return [one.message for one in lab.look().conditions if one.type == "Devices" and one.status is False]


def changes(lab: Lab, want: Desired) -> list[tuple[str, str, Effect]]:
    return [(change.op, change.field, change.effect) for change in lab.changes(want)]


def test_usb_devices_come_and_go_while_the_guest_runs(linux: Lab) -> None:
    linux.converge(busybox(linux, {}))
    boot, process = boot_id(linux), linux.process()
    want = busybox(linux, {"tablet": TABLET})
    assert changes(linux, want) == [("add", "devices.tablet", Effect.LIVE)]
    assert linux.converge(want) == [Verb.UPDATE]
    assert sees(linux, TABLET_ID)
    linux.converge(busybox(linux, {"tablet": TABLET, "line": LINE}))
    assert sees(linux, LINE_ID)
    assert "A1" in linux.inside("/bin/sh", "-c", "cat /sys/bus/usb/devices/*/serial")
    until(linux, "[ -c /dev/ttyUSB0 ]")
    linux.inside("/bin/sh", "-c", "echo hello from the guest >/dev/ttyUSB0")
    assert eventually(lambda: "hello" in people(linux, "ringbuf-read", device="device-line-line", size=1000))
    want = busybox(linux, {"line": LINE})
    assert linux.converge(want) == [Verb.UPDATE]
    assert sees(linux, TABLET_ID, False)
    people(linux, "device_del", id="device-line")
    assert sees(linux, LINE_ID, False)
    assert changes(linux, want) == [("add", "devices.line", Effect.LIVE)]
    assert linux.converge(want) == [Verb.UPDATE]
    assert sees(linux, LINE_ID)
    linux.converge(busybox(linux, {}))
    assert sees(linux, LINE_ID, False)
    assert (boot_id(linux), linux.process()) == (boot, process)


def test_emulated_devices_show_the_ids_by_which_containers_in_a_vm_get_them(linux: Lab) -> None:
    size = {"usb-storage": {"size": "1MiB"}}
    wanted = {driver: {"emulate": {"driver": driver, **size.get(driver, {})}} for driver in EMULATED}
    linux.converge(busybox(linux, wanted))
    shown = " ".join(sorted(":".join(ids) for ids in EMULATED.values()))
    until(linux, f'[ "$({{ {_USB}; }} | grep : | sort | xargs)" = "{shown}" ]')
    linux.converge(busybox(linux, {}))


def test_an_emulated_stick_keeps_its_data_until_it_is_taken_away(linux: Lab) -> None:
    stick = {"emulate": {"driver": "usb-storage", "size": "16MiB", "removable": True}}
    want = busybox(linux, {"stick": stick})
    linux.converge(want)
    assert sees(linux, STICK_ID)
    until(linux, "[ -b /dev/sda ]")
    assert linux.inside("cat", "/sys/block/sda/size", "/sys/block/sda/removable").split() == ["32768", "1"]
    linux.inside("/bin/sh", "-c", "echo kept | dd of=/dev/sda conv=fsync 2>/dev/null")
    file = linux.folder().stick("device-stick")
    assert file.read_bytes()[:5] == b"kept\n"
    linux.backend.power(want.id, "restart", False, 120.0, print)
    until(linux, "[ -b /dev/sda ]")
    assert linux.inside("/bin/sh", "-c", "head -c 4 /dev/sda") == "kept"
    boot = boot_id(linux)
    bigger = {"emulate": {**stick["emulate"], "size": "32MiB"}}
    assert linux.converge(busybox(linux, {"stick": bigger})) == [Verb.UPDATE]
    assert file.stat().st_size == 32 * MIB
    assert file.read_bytes()[:5] == bytes(5)  # another stick
    linux.converge(busybox(linux, {}))
    assert sees(linux, STICK_ID, False)
    assert not file.exists()
    assert boot_id(linux) == boot


def test_pci_devices_come_and_go_while_the_guest_runs(linux: Lab) -> None:
    linux.converge(busybox(linux, {}))
    boot = boot_id(linux)
    random = {"emulate": {"driver": "virtio-rng-pci", "max-bytes": 1024, "period": 1000}}
    linux.converge(busybox(linux, {"edu": EDU, "random": random}))
    assert sees(linux, EDU_ID, bus=_PCI)
    chosen = "until grep -q virtio /sys/class/misc/hw_random/rng_available; do usleep 100000; done"
    linux.inside("/bin/sh", "-c", f"modprobe virtio_rng; {chosen}")
    linux.converge(busybox(linux, {"random": random}))
    assert sees(linux, EDU_ID, False, bus=_PCI)
    assert boot_id(linux) == boot


def test_a_guest_that_does_not_let_go_is_a_named_problem_and_no_hang(lab: Lab) -> None:
    lab.converge(lab.idle(devices={"edu": EDU}))
    lab.grace = replace(QUICK, device=1.0)  # a guest that never will
    problem = lab.fail(lab.idle())
    assert problem.summary.startswith("device-edu: the guest did not let go of it within")
    assert "a restart takes it out for sure" in str(problem.hint)
    assert "device-edu" in {one["name"] for one in people(lab, "qom-list", path="/machine/peripheral")}
    assert lab.verbs(lab.idle()) == [Verb.UPDATE]  # it is not believed to be gone
    lab.backend.power(lab.idle().id, "stop", True, 1.0, print)
    lab.converge(lab.idle())
    assert "device-edu" not in {one["name"] for one in people(lab, "qom-list", path="/machine/peripheral")}


def test_what_the_host_does_not_have_is_waited_for(lab: Lab) -> None:
    serial = {"usb": {"vendor": "dead", "product": "beef", "serial": "S1"}}
    place = {"usb": {"bus": 9, "port": "1.2"}}
    want = lab.idle(devices={"stick": ABSENT, "one": serial, "place": place})
    lab.converge(lab.idle())
    before = lab.process()
    assert lab.converge(want) == [Verb.UPDATE]
    said = (
        'one: this host has no USB device dead:beef with serial number "S1"; '
        "place: this host has no USB device at bus 9, port 1.2; stick: this host has no USB device dead:beef"
    )
    assert ["; ".join(sorted(message.split("; "))) for message in waiting(lab)] == [said]
    there = {one["name"] for one in people(lab, "qom-list", path="/machine/peripheral")}
    assert {"device-stick", "device-place"} < there
    assert "device-one" not in there  # QEMU could not tell it from others alike
    assert people(lab, "qom-get", path="/machine/peripheral/device-stick", property="vendorid") == 0xDEAD
    assert lab.process() == before
    lab.backend.power(want.id, "restart", True, 1.0, print)
    assert lab.process() != before
    assert {"device-stick", "device-place"} < {
        one["name"] for one in people(lab, "qom-list", path="/machine/peripheral")
    }
    lab.converge(lab.idle())
    assert waiting(lab) == []


@contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """A block device of the host."""
    file.write_bytes(bytes(MIB))
    made = subprocess.run(["losetup", "--find", "--show", file], check=True, capture_output=True, text=True)
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_a_block_device_of_the_host_is_a_disk_of_one_guest(linux: Lab, tmp_path: Path) -> None:
    with loop_device(tmp_path / "disk") as node:
        linux.converge(busybox(linux, {}))
        boot = boot_id(linux)
        want = busybox(linux, {"disk": {"unix": node}})
        linux.converge(want)
        disk = until(linux, "grep -l disk /sys/block/vd*/serial").split("/")[3]
        linux.inside("/bin/sh", "-c", f"echo written | dd of=/dev/{disk} conv=fsync 2>/dev/null")
        assert Path(node).read_bytes()[:7] == b"written"
        problem = linux.fail(linux.idle("other", devices={"disk": {"unix": node}}))
        assert problem.summary == f"{node}: Device or resource busy"
        linux.converge(busybox(linux, {}))
        until(linux, f"[ ! -e /sys/block/{disk} ]")
        assert boot_id(linux) == boot
        linux.converge(linux.idle("other", devices={"disk": {"unix": node}}))  # it is free again
        linux.delete(linux.idle("other").id)


def test_a_terminal_of_the_host_is_a_serial_port_and_comes_back(linux: Lab, tmp_path: Path) -> None:
    ours, its = pty.openpty()
    line = Path("/dev/shm") / f"line-{os.getpid()}"
    want = busybox(linux, {"line": {"unix": str(line)}})
    try:
        linux.converge(want)  # it is not there yet
        assert waiting(linux) == [f"line: this host has no {line}"]
        boot = boot_id(linux)
        line.symlink_to(os.ttyname(its))
        assert changes(linux, want) == [("add", "devices.line", Effect.LIVE)]
        assert linux.converge(want) == [Verb.UPDATE]
        assert waiting(linux) == []
        assert until(linux, "cat /sys/bus/usb/devices/*/serial | grep line") == "line"
        until(linux, "[ -c /dev/ttyUSB0 ]")
        linux.inside("/bin/sh", "-c", "echo hello >/dev/ttyUSB0")
        said = b""
        while b"hello" not in said:
            assert select.select([ours], [], [], 60)[0]
            said += os.read(ours, 100)
        line.unlink()
        assert linux.verbs(want) == [Verb.NOOP]  # whoever pulls it out is not fought
        assert waiting(linux) == [f"line: this host has no {line}"]
        linux.converge(busybox(linux, {}))
        assert boot_id(linux) == boot
    finally:
        line.unlink(missing_ok=True)
        os.close(ours)
        os.close(its)


@pytest.mark.parametrize(
    ("device", "summary", "hint"),
    [
        ({"emulate": {"driver": "usb-tabelt"}}, '"usb-tabelt" cannot be emulated', 'did you mean "usb-tablet"?'),
        ({"emulate": {"driver": "usb-tablet", "seriel": "x"}}, 'takes no option "seriel"', 'did you mean "serial"?'),
        ({"emulate": {"driver": "usb-tablet", "pcap": "/etc/x"}}, 'takes no option "pcap"', "it takes"),
        ({"emulate": {"driver": "usb-mtp"}}, '"usb-mtp" cannot be emulated', "it can be"),
        ({"emulate": {"driver": "usb-storage"}}, "how big is it to be?", 'size: "64MiB"'),
        ({"emulate": {"driver": "edu", "dma_mask": "all"}}, "expected an integer", None),
        ({"pci": "0000:00:01.0"}, "0000:00:01.0: ", ""),
        ({"gpu": "0000:99:00.0"}, "this host has no such PCI device", "reconciler devices"),
        ({"unix": "/dev/null"}, "/dev/null: neither a serial port nor a block device", "containers take others"),
        ({"unix": "/etc/passwd"}, "/etc/passwd is no device", None),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_touched(
    lab: Lab, device: dict[str, Any], summary: str, hint: str | None
) -> None:
    lab.converge(lab.idle(devices={"tablet": TABLET}))
    record = lab.record()
    problem = lab.fail(lab.idle(devices={"bad": device}))
    assert summary in problem.summary
    assert hint is None or hint in str(problem.hint)
    assert lab.record() == record
    assert lab.apply(replace(lab.idle(devices={"bad": device}), id=lab.idle("new").id))[0].result is Result.FAILED
    assert not lab.folder("new").exists()


def test_every_driver_of_the_closed_set_is_taken_by_qemu_as_it_is(lab: Lab) -> None:
    listed = {}
    for driver in DRIVERS:
        size = {"size": "1MiB"} if driver == "usb-storage" else {}
        try:
            device_of({"driver": driver}, "VM", "emulate")
        except Refused:
            continue  # not built into this QEMU
        listed[driver] = {"emulate": {"driver": driver, **size}}
    assert len(listed) > 10
    lab.converge(lab.idle(devices=listed))


def test_rights_are_handed_over_and_taken_back(lab: Lab, tmp_path: Path) -> None:
    lab.converge(lab.idle(power="stopped"))
    record = lab.record().but(uid=lab.record().uid or os.geteuid())
    node = tmp_path / "node"
    node.write_bytes(b"")
    rights.hand_over(node, record)
    assert node.stat().st_uid == record.uid
    assert rights.is_handed_over(node, record)
    if os.geteuid() == 0:
        rights.take_back(node, record)
        assert not rights.is_handed_over(node, record)
    match = {"idVendor": "046d", "idProduct": "c52b", "serial": "A1"}
    rights.promise("device-x", match, record, tmp_path)
    assert not (tmp_path / "run").exists()  # nobody there who would read it
    (tmp_path / "run/udev").mkdir(parents=True)
    (tmp_path / "run/udev/control").write_bytes(b"")
    rights.promise("device-y", {**match, "serial": '", RUN+="evil'}, record, tmp_path)
    assert not (tmp_path / "run/udev/rules.d").exists()
    rights.promise("device-x", match, record, tmp_path)
    [rule] = (tmp_path / "run/udev/rules.d").iterdir()
    assert rule.read_text() == (
        'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{idVendor}=="046d", ATTR{idProduct}=="c52b", '
        f'ATTR{{serial}}=="A1", OWNER="{record.uid}"\n'
    )
    rights.withdraw("device-x", record, tmp_path)
    assert not list((tmp_path / "run/udev/rules.d").iterdir())
