"""The Debian container: systemd comes up in it, and its own tools make the account that is declared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.backends.lxd import guests, session
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.session import capture
from tests.lxd.test_home import ADA, KEY, ZONE
from tests.support.lxd import Lab, PrivateLxd, lab_on

pytestmark = pytest.mark.proof
IDENTITY = "d" * 64
UP = {"command": ["systemctl", "is-system-running", "--wait"], "timeout": 200}


@pytest.fixture(scope="module")
def home(lxd: PrivateLxd) -> Iterator[tuple[Lab, str]]:
    """A Debian that runs, made from the recipe, with an account."""
    with lab_on(lxd) as lab:
        source = {"build": {"recipe": "debian", "packages": ["file"]}}
        image = lab.desired("Image", "debian", {"type": "container", "source": source, "identity": IDENTITY})
        bridge, name = lab.lxd.name("b"), lab.lxd.name()
        ipv4 = {"address": f"{lab.net}.8.1/24", "nat": False}
        network = lab.desired("Network", bridge, {"type": "bridge", "ipv4": ipv4})
        devices = {"eth0": {"type": "nic", "network": bridge, "name": "eth0"}}
        spec: dict[str, Any] = {
            "image": {"name": "debian", "identity": IDENTITY},
            "user": ADA,
            "devices": devices,
            "nesting": True,
        }
        wanted = lab.container(name, ready={**UP, "ip": True}, needs=(image.id, network.id), **spec, **ZONE)
        lab.converge(image, network, wanted)
        yield lab, name


def test_the_whole_system_comes_up(home: tuple[Lab, str]) -> None:
    lab, name = home
    assert lab.inside(name, "systemctl", "--failed", "--no-legend").strip() == ""
    assert lab.inside(name, "systemctl", "is-system-running").strip() == "running"
    assert lab.inside(name, "file", "--brief", "/etc/machine-id").strip() == "ASCII text"
    assert lab.inside(name, "hostname").strip() == name
    assert f"{lab.net}.8." in lab.inside(name, "ip", "-4", "addr", "show", "eth0")


def test_its_account_is_a_home(home: tuple[Lab, str]) -> None:
    lab, name = home
    said = lab.inside(name, "su", "-l", "ada", "-c", "id -u; pwd; sudo -n id -un; date +%Z; echo $LANG $SHELL")
    assert said.split() == ["1234", "/home/ada", "root", "IST", "de_DE.UTF-8", "/bin/bash"]
    assert set(lab.inside(name, "id", "-Gn", "ada").split()) == {"ada", "www-data", "audio"}
    assert lab.inside(name, "stat", "-c", "%U", "/home/ada/.bashrc").strip() == "ada"  # from /etc/skel
    assert KEY in lab.inside(name, "cat", "/home/ada/.ssh/authorized_keys")
    assert lab.inside(name, "passwd", "--status", "ada").split()[1] == "L"
    lab.inside(name, "visudo", "--check", "--quiet")
    lab.inside(name, "pwck", "--read-only", "--quiet")
    lab.inside(name, "grpck", "--read-only")


def test_its_services_run_while_nobody_is_logged_in(home: tuple[Lab, str]) -> None:
    lab, name = home
    lab.inside(name, "systemctl", "is-active", "user@1234.service")
    assert lab.inside(name, "loginctl", "show-user", "ada", "--property=Linger").strip() == "Linger=yes"


def test_exec_as_the_account_has_its_groups_and_its_home(home: tuple[Lab, str]) -> None:
    lab, name = home
    said = bytearray()
    command = guests.as_account(
        lab.client, name, "ada", session.Command(["sh", "-c", "id -Gn; pwd; exit 7"], said.extend, said.extend)
    )
    assert session.run(lab.client, name, command, Deadline.after(60)) == 7
    assert set(said.decode().split()) == {"ada", "www-data", "audio", "/home/ada"}


def test_it_goes_down_when_it_is_asked_to(home: tuple[Lab, str]) -> None:
    lab, name = home
    pid = lab.raw("instances", name, "state")["pid"]
    assert (
        json.loads(capture(lab.client, name, ["systemctl", "list-jobs", "-o", "json"], Deadline.after(60))[1] or b"[]")
        == []
    )
    lab.client.put(("instances", name, "state"), {"action": "stop", "timeout": 120}, Deadline.after(180))
    assert (pid, lab.raw("instances", name, "state")["status"]) != (0, "Running")
