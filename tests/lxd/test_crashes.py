"""Any step may be killed half-way; the next pass finishes it, and does nothing twice that is to be done once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Desired, ResourceId
from tests.support.lxd import Lab, crash_at

PAYLOAD = {"one": b"first\n", "two": b"second\n"}
MANY = 40


def busy(lab: Lab, name: str, **spec: object) -> Desired:
    """A container with everything that an apply does to a guest."""
    full = {
        "files": {"/etc/deep/file": {"sha256": "one", "mode": "0600", "owner": "3:4"}},
        "run": [
            {"command": ["sh", "-c", "echo c >> /created"], "when": "create", "timeout": 60},
            {"command": ["sh", "-c", "echo d >> /created"], "when": "create", "timeout": 60},
            {"command": ["sh", "-c", "echo s >> /started"], "when": "start", "timeout": 60},
            {"command": ["sh", "-c", "echo x >> /changed"], "when": "change", "timeout": 60},
        ],
        "ready": {"command": ["test", "-e", "/started"], "timeout": 120},
    }
    fields: dict[str, Any] = {**full, **spec}
    return lab.container(name, payload=PAYLOAD, **fields)


def crashes(lab: Lab, want: Desired | list[Desired], write: int, replied: bool) -> bool:
    """Apply and die at that write; False when there are not so many."""
    with crash_at(lab.client, write, replied) as died:
        lab.apply(*([want] if isinstance(want, Desired) else want))
    return bool(died)


@pytest.mark.parametrize(
    "replied",
    [pytest.param(False, id="before sending"), pytest.param(True, id="reply lost", marks=pytest.mark.proof)],
)
def test_a_creation_cut_off_at_any_write_is_finished(lab: Lab, replied: bool) -> None:
    for write in range(1, MANY):
        name = lab.lxd.name()
        want = busy(lab, name)
        crashed = crashes(lab, want, write, replied)
        lab.converge(want)
        assert lab.inside(name, "cat", "/etc/deep/file") == "first\n"
        created = lab.inside(name, "cat", "/created").split()
        # a command that was running when we died may have ended or not: it runs once more, the others do not
        assert created.count("c") <= 2 and created.count("d") <= 2 and len(created) <= 3
        assert created[-1] == "d" and not lab.inside(name, "sh", "-c", "ls /changed 2>&1; true").startswith(
            "/changed\n"
        )
        lab.sweep()
        if not crashed:
            break
    assert write > 8


def test_a_change_cut_off_at_any_write_is_finished(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(busy(lab, name))
    for write in range(1, MANY):
        which = ("one", "two")[write % 2]
        want = busy(
            lab,
            name,
            files={"/etc/deep/file": {"sha256": which, "mode": "0600", "owner": "3:4"}},
            config={"limits.kernel.nofile": str(500 + write), "user.x": str(write)},
            cpus={"count": 1 + write % 2},
            memory={"size": (64 + write) << 20},
        )
        crashed = crashes(lab, want, write, replied=True)
        lab.converge(want)
        assert lab.inside(name, "cat", "/etc/deep/file").encode() == PAYLOAD[which]
        assert lab.inside(name, "sh", "-c", "ulimit -n").strip() == str(500 + write)
        if not crashed:
            break
    assert write > 8
    assert set(lab.inside(name, "cat", "/created").split()) == {"c", "d"}


def test_a_rename_cut_off_at_any_write_is_finished(lab: Lab) -> None:
    for write in range(1, MANY):
        old, new = lab.lxd.name("o"), lab.lxd.name("n")
        lab.converge(lab.container(old, power="stopped"))
        want = lab.desired("Container", new, lab.container(new, power="stopped").spec, renamed_from=old)
        crashed = crashes(lab, want, write, replied=write % 2 == 0)
        lab.converge(want)
        here = {id.name for id in lab.look().resources if id.kind == "Container"}
        assert here == {new}
        lab.sweep()
        if not crashed:
            break
    assert write > 3


def test_a_replacement_cut_off_is_finished(lab: Lab) -> None:
    for write in range(1, MANY):
        name = lab.lxd.name()
        lab.converge(lab.container(name, imagePolicy="follow"))
        older = {"config": {"user.reconciler.image": '{"identity":"old"}'}}
        lab.client.patch(("instances", name), older, Deadline.after(60))
        want = lab.container(name, imagePolicy="follow")
        crashed = crashes(lab, want, write, replied=True)
        lab.converge(want)
        assert lab.look().resources[ResourceId("Container", name)].spec["image"]["identity"] == "b" * 64
        lab.sweep()
        if not crashed:
            break
    assert write > 3


def test_devices_cut_off_at_any_write_are_finished(lab: Lab, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("even", "odd")]
    for folder in folders:
        folder.mkdir(mode=0o755)
        (folder / "name").write_text(folder.name)
    name = lab.lxd.name()
    lab.converge(lab.container(name, devices=plugged(folders[0], "/dev/full")))
    began = lab.init_start(name)
    for write in range(1, MANY):
        folder = folders[write % 2]
        want = lab.container(name, devices=plugged(folder, ("/dev/full", "/dev/zero")[write % 2]))
        lab.forget_owners()  # with the detour of a share whose owners cannot be mapped
        crashed = crashes(lab, want, write, replied=write % 3 == 0)
        lab.converge(want)
        assert lab.inside(name, "cat", "/srv/name") == folder.name
        assert lab.init_start(name) == began
        if not crashed:
            break
    assert write > 3


def plugged(folder: Path, node: str) -> dict[str, dict[str, str]]:
    return {
        "share-site": {"type": "disk", "source": str(folder), "path": "/srv", "readonly": "true"},
        "device-node": {"type": "unix-char", "source": node, "path": "/dev/node"},
    }


def test_a_network_that_moves_and_is_cut_off_at_any_write_arrives(lab: Lab) -> None:
    bridge, name = lab.lxd.name("b"), lab.lxd.name()
    lab.converge(*on_subnet(lab, bridge, name, 0))
    began = lab.init_start(name)
    for write in range(1, MANY):
        want = on_subnet(lab, bridge, name, write % 2)
        crashed = crashes(lab, want, write, replied=write % 3 == 0)
        lab.converge(*want)
        address = lab.raw("instances", name)["devices"]["eth0"]["ipv4.address"]
        assert address == f"{lab.net}.{101 + write % 2}.7" and lab.init_start(name) == began
        assert "eth0" in lab.inside(name, "ls", "/sys/class/net")
        if not crashed:
            break
    assert write > 4


def on_subnet(lab: Lab, bridge: str, name: str, which: int) -> list[Desired]:
    subnet = f"{lab.net}.{101 + which}"
    ipv4 = {"address": f"{subnet}.1/24", "nat": False}
    network = lab.desired("Network", bridge, {"type": "bridge", "ipv4": ipv4, "ipv6": {"address": "none"}})
    card = {"type": "nic", "network": bridge, "name": "eth0", "ipv4.address": f"{subnet}.7"}
    return [network, lab.container(name, needs=[network.id], devices={"eth0": card})]
