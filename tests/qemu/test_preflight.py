"""Before a guest is stopped or made: what cannot work is refused by name, and the guest runs on as if nothing was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import accelerator, programs
from reconciler.backends.qemu.capabilities import capabilities, parse_processors
from reconciler.model import Power
from tests.support.qemu import MIB, Lab


def raw(path: Path) -> dict[str, Any]:
    return {"path": str(path), "format": "raw", "readOnly": False}


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "machine": ({"machine": "pc"}, 'machine: "pc" is not supported'),
    "version": ({"machine": "pc-q35-99.9"}, 'machine: QEMU knows no machine "pc-q35-99.9"'),
    "processor": ({"cpuModel": "nonesuch"}, 'cpuModel: QEMU knows no cpuModel "nonesuch"'),
    "host": ({"cpuModel": "host"}, 'cpuModel: "host" needs KVM'),
    "card": ({"nics": {"net": {"type": "user", "model": "nonesuch"}}}, "nics.net.model: QEMU knows no network card"),
    "no card": ({"nics": {"net": {"type": "user", "model": "virtio-blk-pci"}}}, "nics.net.model: QEMU knows no"),
    "bridge": ({"nics": {"net": {"type": "bridge", "bridge": "rt-none"}}}, 'nics.net.bridge: there is no "rt-none"'),
    "memory": ({"memory": {"size": 1 << 60}}, "memory: this host has "),
    "disk": ({"disks": {"data": raw(Path("/nonesuch"))}}, "/nonesuch: No such file"),
    "kernel": ({"boot": {"kernel": "/nonesuch"}}, "boot.kernel: /nonesuch: No such file"),
    "no kernel": ({"boot": {"kernel": "/etc/passwd"}}, "boot.kernel: /etc/passwd: not a kernel"),
    "initrd": ({"boot": {"kernel": "/bin/true", "initrd": "/nonesuch"}}, "boot.initrd: /nonesuch: No such file"),
}


def test_a_running_guest_outlives_what_cannot_work(lab: Lab) -> None:
    lab.converge(lab.idle())
    before = lab.process()
    for spec, expected in IMPOSSIBLE.values():
        problem = lab.fail(lab.idle(**spec))
        assert problem.summary.startswith(expected)
        assert problem.subject == "VirtualMachine/vm"
        assert lab.process() == before
        assert lab.look().pending is None
    lab.converge(lab.idle())
    assert lab.process() == before


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_nothing_half_made_of_what_cannot_work(lab: Lab, what: str) -> None:
    spec, expected = IMPOSSIBLE[what]
    assert lab.fail(lab.idle(**spec)).summary.startswith(expected)
    assert not lab.folder().exists()


def test_kvm_that_cannot_be_opened_stops_no_guest(lab: Lab) -> None:
    lab.converge(lab.idle())
    before = lab.process()
    device = Path("/dev/kvm")
    if not device.exists() or (os.geteuid() == 0 and not accelerator.is_open_to_machines(device.stat())):
        problem = lab.fail(lab.idle(accelerator="kvm"))
        assert problem.summary.startswith("accelerator: kvm cannot be used: /dev/kvm")
        assert '"auto"' in str(problem.hint)
    assert lab.process() == before


def test_a_guest_that_shall_be_down_goes_down_whatever_else_is_wrong(lab: Lab) -> None:
    lab.converge(lab.idle())
    lab.apply(lab.idle(cpuModel="nonesuch", power="stopped"))
    assert lab.look().power is Power.STOPPED


def test_firmware_that_is_not_installed_stops_no_guest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.converge(lab.idle())
    before = lab.process()
    monkeypatch.setattr(programs, "_FIRMWARE_FOLDERS", (str(lab.state / "none"),))
    assert lab.fail(lab.idle(firmware="uefi")).summary == "firmware: no UEFI firmware is installed"
    assert lab.process() == before


def test_a_disk_in_use_may_stay_as_it_is_over_a_restart(lab: Lab) -> None:
    path = lab.state / "data.raw"
    path.write_bytes(bytes(MIB))
    lab.converge(lab.idle(disks={"data": raw(path)}))
    before = lab.process()
    lab.converge(lab.idle(disks={"data": raw(path)}, cpuModel="qemu64"))
    assert lab.process() != before


def test_what_qemu_says_it_knows() -> None:
    known = capabilities()
    assert {"q35", "pc"} <= known.machines
    assert {"max", "qemu64", "host"} <= known.processors
    assert {"virtio-net-pci", "virtio-net", "e1000"} <= known.cards
    assert "virtio-blk-pci" not in known.cards
    assert not {"x86", "Recognized", "fpu"} & known.processors
    assert parse_processors("Available CPUs:\n  max   Enables all\n\nRecognized CPUID flags:\n fpu\n") == {"max"}
