"""Devices in running guests: plugged in, out, and in again, by the guest's own word and with its boot id unchanged."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.emulation import DRIVERS, PCI, device_of, option_types
from reconciler.backends.qemu.plugging import devices, usb, vfio
from reconciler.model import Condition, Desired, Effect, Result, Verb
from reconciler.problems import Refused
from tests.support.qemu import MIB, Lab

USB = "/sys/bus/usb/devices"
TABLET = {"emulate": {"driver": "usb-tablet"}}
TABLET_ID, SERIAL_ID, STICK_ID = "0627:0001", "0403:6001", "46f4:0001"


def busybox(lab: Lab, devices: Mapping[str, Any], **spec: Any) -> Desired:
    return lab.busybox(devices=dict(devices), **spec)


def boot_id(lab: Lab) -> str:
    return lab.inside("cat", "/proc/sys/kernel/random/boot_id")


def usb_seen(lab: Lab) -> set[str]:
    """vendor:product of all that the guest has, hubs of its own left out."""
    script = f'for one in {USB}/*-*; do [ -f "$one/idVendor" ] && echo "$(cat $one/idVendor):$(cat $one/idProduct)"; done'
    return set(lab.ask("/bin/sh", "-c", script).out.decode().split())


def eventually(lab: Lab, wanted: set[str]) -> None:
    """A guest looks at its bus in its own time; 10 seconds of it are enough."""
    script = (
        f"for try in $(seq 50); do seen=$(for one in {USB}/*-*; do [ -f $one/idVendor ] && "
        'echo "$(cat $one/idVendor):$(cat $one/idProduct)"; done | sort -u | tr "\\n" " "); '
        '[ "$seen" = "$1" ] && exit 0; usleep 200000; done; echo "$seen"; exit 1'
    )
    expected = "".join(f"{one} " for one in sorted(wanted))
    done = lab.ask("/bin/sh", "-c", script, "sh", expected)
    assert done.code == 0, (done.out, expected)


def people(lab: Lab, command: str, **arguments: Any) -> Any:
    """What somebody else does behind our back."""
    with Monitor(lab.folder().people, "people") as monitor:
        return monitor.execute(command, arguments)


def conditions(lab: Lab) -> list[Condition]:
    return [one for one in lab.look().conditions if one.type == "Devices"]


def test_usb_devices_come_and_go_while_the_guest_runs(linux: Lab) -> None:
    linux.converge(busybox(linux, {}))
    boot, process = boot_id(linux), linux.process()
    want = busybox(linux, {"tablet": TABLET})
    changes = linux.changes(want)
    assert [(change.field, change.effect) for change in changes] == [("devices.tablet", Effect.LIVE)]
    assert linux.converge(want) == [Verb.UPDATE]
    eventually(linux, {TABLET_ID})
    both = {"tablet": TABLET, "line": {"emulate": {"driver": "usb-serial", "serial": "A1"}}}
    linux.converge(busybox(linux, both))
    eventually(linux, {TABLET_ID, SERIAL_ID})
    linux.inside("/bin/sh", "-c", "echo hello from the guest >/dev/ttyUSB0")
    assert "hello from the guest" in people(linux, "ringbuf-read", device="device-line-line", size=1000)
    linux.converge(busybox(linux, {"line": both["line"]}))
    eventually(linux, {SERIAL_ID})
    linux.converge(busybox(linux, {}))
    eventually(linux, set())
    assert (boot_id(linux), linux.process()) == (boot, process)
