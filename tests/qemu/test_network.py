"""NICs: addresses that stay, taps that live as long as their QEMU, bridges of the host."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu.agent import Agent
from reconciler.model import ResourceId, Verb
from tests.support.qemu import Lab, give_address, holders
from tests.support.unique import own_net

NET = Path("/sys/class/net")
SUBNET = f"{own_net()}.78"
VM = ResourceId("VirtualMachine", "vm")


def nic(type: str = "user", **more: Any) -> dict[str, Any]:
    return {"type": type, "model": "virtio-net-pci", **more}


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge that nobody else has."""
    name = f"rt{secrets.token_hex(4)}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)


def taps(lab: Lab) -> set[str]:
    """Those that the VM's QEMU holds: other ones on this machine come and go meanwhile."""
    pid = lab.process().pid
    told = []
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            told += info.read_text().splitlines()
    return {line.split()[1] for line in told if line.startswith("iff:")}


def test_addresses_stay_over_restarts_and_renames(lab: Lab) -> None:
    want = lab.idle(nics={"eth0": nic(), "eth1": nic(mac="52:54:00:aa:bb:cc")})
    lab.converge(want)
    first = macs(lab)
    assert first["eth0"].startswith("52:54:00:")
    assert first["eth1"] == "52:54:00:aa:bb:cc"
    renamed = replace(want, id=ResourceId("VirtualMachine", "new"), renamed_from=want.id)
    lab.converge(renamed)
    assert macs(lab, "new") == first
    assert "mac" not in lab.look("new").spec["nics"]["eth0"]  # what was not said is not drift


def macs(lab: Lab, name: str = "vm") -> dict[str, str]:
    from reconciler.backends.qemu.client import Monitor

    with Monitor(lab.folder(name).qmp, name) as monitor:
        ask = {nic: {"path": f"/machine/peripheral/nic-{nic}", "property": "mac"} for nic in ("eth0", "eth1")}
        return {nic: monitor.execute("qom-get", arguments) for nic, arguments in ask.items()}


def test_a_changed_address_is_a_change(lab: Lab) -> None:
    """At rest; under a guest that runs, and lets go of its card: see test_hotplug."""
    lab.converge(lab.idle(nics={"eth0": nic(mac="52:54:00:aa:bb:cc")}, power="stopped"))
    other = lab.idle(nics={"eth0": nic(mac="52:54:00:aa:bb:dd")}, power="stopped")
    assert [change.field for change in lab.changes(other)] == ["nics.eth0.mac"]
    assert lab.converge(other) == [Verb.UPDATE]


def test_a_tap_on_a_bridge_lives_as_long_as_its_qemu(lab: Lab, bridge: str) -> None:
    lab.converge(lab.idle(nics={"eth0": nic("bridge", bridge=bridge), "eth1": nic("tap")}))
    mine = taps(lab)
    assert len(mine) == 2
    assert all((NET / name).exists() for name in mine)
    numbers = {(NET / name / "ifindex").read_text() for name in mine}
    assert len(list((NET / bridge / "brif").iterdir())) == 1
    assert all(int((NET / name / "flags").read_text(), 16) & 1 for name in mine)
    lab.signal(signal.SIGKILL)
    assert not numbers & {path.read_text() for path in NET.glob("*/ifindex")}


def test_a_guest_reaches_its_bridge(linux: Lab, bridge: str) -> None:
    subprocess.run(["ip", "addr", "add", f"{SUBNET}.1/24", "dev", bridge], check=True)
    linux.converge(linux.busybox(nics={"eth0": nic("bridge", bridge=bridge)}))
    give_address(linux, f"{SUBNET}.2/24")
    assert linux.ask("ping", "-c", "1", "-W", "30", f"{SUBNET}.1").code == 0
    assert told_in_time(linux) == {VM: [f"{SUBNET}.2"]}
    with Agent(linux.folder().agent, "vm", patience=60, keep=False):  # it hears one at a time
        assert linux.backend.addresses() == {VM: None}
    assert told_in_time(linux) == {VM: [f"{SUBNET}.2"]}


def told_in_time(lab: Lab) -> Mapping[ResourceId, Sequence[str] | None]:
    """The addresses of its one VM: a busy machine's agent may be slow to say them."""
    deadline = time.monotonic() + 60
    while (told := lab.backend.addresses()) == {VM: None}:
        assert time.monotonic() < deadline
    return told


def test_a_bridge_that_is_not_there(lab: Lab) -> None:
    problem = lab.fail(lab.idle(nics={"eth0": nic("bridge", bridge="rtnone")}))
    assert 'there is no "rtnone"' in problem.summary
    assert holders(lab.state) == []


def test_user_network_reaches_out_and_nothing_reaches_in(linux: Lab) -> None:
    linux.converge(linux.busybox(nics={"eth0": nic()}))
    linux.inside("sh", "-c", "until ip -4 addr show eth0 | grep 'inet 10[.]0[.]2[.]'; do usleep 200000; done")
