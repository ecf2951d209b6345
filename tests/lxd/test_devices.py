"""Devices of a running container, type by type: added, changed and taken away without a restart; and PortForward."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.effects import effect_of
from reconciler.model import Change, Effect, Power, ResourceId, Result, Verb
from tests.support.lxd import Lab
from tests.support.unique import own_name, own_net, own_port

NOBODY_HAS = {"vendorid": "1d6b", "productid": "fffe"}


def start(lab: Lab, **devices: dict[str, str]) -> tuple[str, str]:
    """A running container, and when its init began."""
    name = lab.lxd.name()
    lab.converge(lab.container(name, devices=spelled(devices)))
    return name, lab.init_start(name)


def spelled(devices: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): device for name, device in devices.items()}


def live(lab: Lab, name: str, began: str, **devices: dict[str, str]) -> None:
    """Bring it to these devices; nothing restarts, and the plan said so."""
    outcomes = lab.converge(lab.container(name, devices=spelled(devices)))
    assert outcomes[0].step.verb is Verb.UPDATE and outcomes[0].step.effect is Effect.LIVE
    assert lab.init_start(name) == began


def refused(lab: Lab, name: str, began: str, **devices: dict[str, str]) -> str:
    """It is tried, and LXD or we say no: what was said."""
    outcomes = lab.apply(lab.container(name, devices=spelled(devices)))
    assert outcomes[0].result is Result.FAILED and lab.init_start(name) == began
    return str(outcomes[0].problem)


# Nodes ----------------------------------------------------------------------------------------------------------


def test_a_character_device(lab: Lab) -> None:
    name, began = start(lab)
    node = {"type": "unix-char", "source": "/dev/full", "path": "/dev/crammed", "required": "false"}
    live(lab, name, began, device_full=node)
    assert "No space left" in lab.inside(name, "sh", "-c", "echo x 2>&1 >/dev/crammed || true")
    live(lab, name, began, device_full={**node, "mode": "0604", "uid": "7"})
    assert lab.inside(name, "stat", "-c", "%a %u", "/dev/crammed").strip() == "604 7"
    live(lab, name, began)
    lab.inside(name, "test", "!", "-e", "/dev/crammed")


def test_a_block_device(lab: Lab) -> None:
    name, began = start(lab)
    live(lab, name, began, device_loop={"type": "unix-block", "source": "/dev/loop7", "path": "/dev/loop7"})
    assert lab.inside(name, "stat", "-c", "%F %t %T", "/dev/loop7").strip() == "block special file 7 7"
    live(lab, name, began)
    lab.inside(name, "test", "!", "-e", "/dev/loop7")


def test_a_node_that_is_not_there_yet_is_waited_for(lab: Lab) -> None:
    name, began = start(lab)
    node = {"type": "unix-char", "source": "/dev/rtlater", "path": "/dev/rtlater", "required": "false"}
    live(lab, name, began, device_later=node)
    lab.inside(name, "test", "!", "-e", "/dev/rtlater")


def test_a_node_that_went_missing_is_plugged_in_again(lab: Lab) -> None:
    name, began = start(lab, device_full={"type": "unix-char", "source": "/dev/full", "path": "/dev/crammed"})
    lab.inside(name, "umount", "/dev/crammed")
    live(lab, name, began, device_full={"type": "unix-char", "source": "/dev/full", "path": "/dev/crammed"})
    lab.inside(name, "test", "-c", "/dev/crammed")


def test_usb_is_taken_before_the_stick_is_there(lab: Lab) -> None:
    name, began = start(lab)
    live(lab, name, began, device_stick={"type": "usb", **NOBODY_HAS})
    live(lab, name, began, device_stick={"type": "usb", **NOBODY_HAS, "mode": "0600"})
    live(lab, name, began)


def test_usb_by_serial_number_is_refused_where_lxd_cannot(lab: Lab) -> None:
    name, began = start(lab)
    said = refused(lab, name, began, device_stick={"type": "usb", **NOBODY_HAS, "serial": "A1"})
    assert "LXD 5.0.2 cannot choose a USB device by its serial number" in said and "leave serial out" in said
    fresh = lab.apply(lab.container(lab.lxd.name(), devices={"device-s": {"type": "usb", "serial": "A1"}}))
    assert "by its serial number" in str(fresh[0].problem)
    assert lab.client.find("instances", fresh[0].step.id.name) is None


@pytest.mark.parametrize(
    "device",
    [
        {"type": "unix-hotplug", **NOBODY_HAS},
        {"type": "none"},
        {"type": "nic", "nictype": "p2p", "name": "eth3"},
    ],
    ids=lambda device: device["type"],
)
def test_other_types_come_and_go(lab: Lab, device: dict[str, str]) -> None:
    name, began = start(lab)
    live(lab, name, began, thing=device)
    if "name" in device:
        assert device["name"] in lab.inside(name, "ls", "/sys/class/net")
    live(lab, name, began)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"type": "gpu", "pci": "0000:00:1f.0"}, "0000:00:1f.0"),
        ({"type": "infiniband", "nictype": "physical", "parent": "rtib0"}, "rtib0"),
        ({"type": "unix-char", "source": "/dev/rtnone", "path": "/dev/rtnone"}, "device path"),
        ({"type": "usb", **NOBODY_HAS, "required": "true"}, "USB"),
        ({"type": "nic", "nictype": "macvlan", "parent": "rtnone", "name": "eth9"}, "rtnone"),
    ],
    ids=lambda one: one["type"] if isinstance(one, dict) else None,
)
def test_hardware_that_is_not_there_is_refused_by_name(lab: Lab, device: dict[str, str], words: str) -> None:
    name, began = start(lab)
    said = refused(lab, name, began, thing=device)
    assert "thing" in said and words in said
    lab.converge(lab.container(name))


# The root disk, and types that are plugged in only before a start -------------------------------------------------


def change_of(lab: Lab, name: str, **devices: dict[str, str]) -> Change:
    plan, _ = lab.plan(lab.container(name, devices=spelled(devices)))
    assert len(plan.steps[0].changes) == 1
    return plan.steps[0].changes[0]


def test_types_that_lxd_does_not_plug_into_what_runs(lab: Lab) -> None:
    name, _ = start(lab)
    ipvlan = {"type": "nic", "nictype": "ipvlan", "parent": "lo", "name": "eth1"}
    assert change_of(lab, name, eth1=ipvlan).effect is Effect.RESTART
    assert change_of(lab, name, gpu={"type": "gpu", "gputype": "mig"}).effect is Effect.RESTART
    assert change_of(lab, name, card={"type": "pci", "address": "0000:00:02.0"}).effect is Effect.IMPOSSIBLE
    with pytest.raises(Exception, match="when instance is running"):
        lab.client.patch(("instances", name), {"devices": {"eth1": {**ipvlan, "parent": "lo"}}}, Deadline.after(60))


def test_fields_of_such_a_type_restart_too(lab: Lab) -> None:
    name = lab.lxd.name()
    ipvlan = {"type": "nic", "nictype": "ipvlan", "parent": "rtnone", "name": "eth1"}
    lab.converge(lab.container(name, power="stopped", devices={"eth1": ipvlan}))
    seen = lab.look().resources[ResourceId("Container", name)]
    change = Change("change", ("devices", "eth1", "mtu"), None, "1400")
    assert effect_of(change, "Container", Power.RUNNING, lab.backend.effects(), seen.rules).effect is Effect.RESTART


def test_the_root_disk_changes_in_place_where_lxd_can_and_is_never_taken_away(lab: Lab) -> None:
    root = {"type": "disk", "path": "/", "pool": "default"}
    name, began = start(lab, root=root)
    live(lab, name, began, root={**root, "size": "1GiB", "limits.max": "10MiB"})
    group = Path(f"/sys/fs/cgroup/blkio/lxc.payload.{name}")
    assert str(10 << 20) in (group / "blkio.throttle.read_bps_device").read_text()
    assert change_of(lab, name, root={**root, "size": "1GiB", "limits.max": "10MiB", "readonly": "true"}).effect is (
        Effect.RESTART
    )
    moved = change_of(lab, name, root={**root, "size": "1GiB", "limits.max": "10MiB", "pool": "elsewhere"})
    assert moved.effect is Effect.IMPOSSIBLE
    bare = lab.apply(lab.container(name, profiles=[]))
    assert bare[0].result is Result.FAILED and "no root disk would be left" in str(bare[0].problem)
    assert lab.init_start(name) == began


# Cards ----------------------------------------------------------------------------------------------------------


def bridge(lab: Lab, subnet: str, **more: object) -> str:
    name = lab.lxd.name("b")
    spec = {"type": "bridge", "ipv4": {"address": subnet, "nat": False}, "ipv6": {"address": "none"}, **more}
    lab.converge(lab.desired("Network", name, spec))
    return name


def test_a_card_comes_goes_and_gets_its_address(lab: Lab) -> None:
    net = bridge(lab, f"{lab.net}.71.1/24")
    name, began = start(lab)
    live(lab, name, began, eth0={"type": "nic", "network": net, "name": "eth0"})
    assert wait_for_address(lab, name).startswith(f"{lab.net}.71.")
    live(lab, name, began)
    assert lab.inside(name, "ls", "/sys/class/net").split() == ["lo"]


def wait_for_address(lab: Lab, name: str) -> str:
    deadline = Deadline.after(60)
    while not deadline.passed:
        words = lab.inside(name, "sh", "-c", "ip -o -4 addr show eth0 2>/dev/null || true").split()
        if "inet" in words:
            return words[words.index("inet") + 1]
        time.sleep(0.2)
    return ""


def in_place(lab: Lab) -> list[dict[str, str]]:
    return [
        {"limits.ingress": "2Mbit"},
        {"ipv4.address": f"{lab.net}.72.77"},
        {"ipv4.routes": f"{lab.net}.73.0/24"},
        {"security.mac_filtering": "true"},
        {"security.ipv4_filtering": "true"},
    ]


PLUGGED_ANEW = [
    {"hwaddr": "00:16:3e:77:66:55"},
    {"security.port_isolation": "true"},
    {"host_name": own_name("v")},
    {"boot.priority": "3"},
]


def test_what_of_a_card_changes_in_place_and_what_plugs_it_in_anew(lab: Lab) -> None:
    net = bridge(lab, f"{lab.net}.72.1/24")
    card = {"type": "nic", "network": net, "name": "eth0"}
    name, began = start(lab, eth0=card)
    for change, stays in [(one, True) for one in in_place(lab)] + [(one, False) for one in PLUGGED_ANEW]:
        before = lab.inside(name, "cat", "/sys/class/net/eth0/ifindex")
        note = change_of(lab, name, eth0={**card, **change}).note
        assert ("as it is" in note) is stays, (change, note)
        live(lab, name, began, eth0={**card, **change})
        assert (lab.inside(name, "cat", "/sys/class/net/eth0/ifindex") == before) is stays, change
        if "hwaddr" in change:
            assert lab.inside(name, "cat", "/sys/class/net/eth0/address").strip() == change["hwaddr"]
        live(lab, name, began, eth0=card)


SIX = f"fd42:{own_net()[3:]}"
IN_PLACE_6 = [
    {"ipv6.address": f"{SIX}:72::77"},
    {"ipv6.routes": f"{SIX}:73::/64"},
    {"security.ipv6_filtering": "true"},
]


def test_what_of_a_card_changes_in_place_under_ipv6(lab: Lab) -> None:
    stateful = {"ipv6": {"address": f"{SIX}:72::1/64", "nat": False}, "config": {"ipv6.dhcp.stateful": "true"}}
    net = bridge(lab, "none", **stateful)
    card = {"type": "nic", "network": net, "name": "eth0"}
    name, began = start(lab, eth0=card)
    before = lab.inside(name, "cat", "/sys/class/net/eth0/ifindex")
    for change in IN_PLACE_6:
        assert "as it is" in change_of(lab, name, eth0={**card, **change}).note, change
        live(lab, name, began, eth0={**card, **change})
        routes = subprocess.run(["ip", "-6", "route", "show", "dev", net], capture_output=True, text=True, check=True)
        assert (f"{SIX}:73::/64" in routes.stdout) is ("ipv6.routes" in change)
        assert lab.inside(name, "cat", "/sys/class/net/eth0/ifindex") == before, change
        live(lab, name, began, eth0=card)


def test_a_card_that_a_refused_change_took_away_is_put_back(lab: Lab) -> None:
    net = bridge(lab, f"{lab.net}.74.1/24")
    card = {"type": "nic", "network": net, "name": "eth0"}
    name, began = start(lab, eth0=card)
    said = refused(lab, name, began, eth0={**card, "vlan": "7"})  # this kernel's bridges know no VLANs
    assert "VLAN" in said and "the old one is plugged in again" in said
    assert "eth0" in lab.inside(name, "ls", "/sys/class/net")
    lab.converge(lab.container(name, devices={"eth0": card}))


def test_a_card_that_is_gone_is_drift(lab: Lab) -> None:
    net = bridge(lab, f"{lab.net}.75.1/24")
    card = {"type": "nic", "network": net, "name": "eth0"}
    name, began = start(lab, eth0=card)
    with suppress(Exception):  # somebody else's refused change: the config looks well, the card is gone
        lab.client.patch(("instances", name), {"devices": {"eth0": {**card, "vlan": "7"}}}, Deadline.after(60))
    assert "eth0" not in lab.inside(name, "ls", "/sys/class/net")
    assert lab.raw("instances", name)["devices"]["eth0"] == card
    assert change_of(lab, name, eth0=card).note.startswith("its card is gone")
    live(lab, name, began, eth0=card)
    assert "eth0" in lab.inside(name, "ls", "/sys/class/net")


# Ports ----------------------------------------------------------------------------------------------------------


def port(protocol: str, outside: int, inside: int) -> dict[str, str]:
    listen, connect = (f"{protocol}:127.0.0.1:{number}" for number in (outside, inside))
    return {"type": "proxy", "listen": listen, "connect": connect, "bind": "host"}


def listening(lab: Lab, name: str) -> None:
    """Something that answers on port 80."""
    lab.inside(name, "sh", "-c", "(nc -ll -p 80 -e echo hello >/dev/null 2>&1 </dev/null &)")


ECHO = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("127.0.0.1", 80))
print("ready", flush=True)
while True:
    one.sendto(*one.recvfrom(100))
"""


@contextmanager
def echoing(lab: Lab, name: str) -> Iterator[None]:
    """What answers on UDP port 80 of the container: busybox has nothing that does, so it is lent to its network."""
    network = f"--net=/proc/{lab.raw('instances', name, 'state')['pid']}/ns/net"
    with subprocess.Popen(["nsenter", network, sys.executable, "-c", ECHO], stdout=subprocess.PIPE) as one:
        try:
            assert one.stdout and one.stdout.readline() == b"ready\n"
            yield
        finally:
            one.kill()


def hear(outside: int) -> str:
    """What it says there; empty when nobody listens on the host. One that does not serve yet is given a moment."""
    deadline = Deadline.after(60)
    while not deadline.passed:
        try:
            with socket.create_connection(("127.0.0.1", outside), 60) as one:
                if said := one.recv(100).decode().strip():
                    return said
        except ConnectionRefusedError:
            return ""
        except ConnectionResetError:
            pass
        time.sleep(0.1)
    return "nothing"


def test_a_tcp_port_comes_moves_and_goes(lab: Lab) -> None:
    name, began = start(lab)
    listening(lab, name)
    first, second = own_port(), own_port()
    live(lab, name, began, port_web=port("tcp", first, 80))
    assert hear(first) == "hello"
    live(lab, name, began, port_web=port("tcp", second, 80))
    assert (hear(first), hear(second)) == ("", "hello")
    live(lab, name, began)
    assert hear(second) == ""


def test_a_udp_port_comes_and_goes(lab: Lab) -> None:
    name, began = start(lab)
    outside = own_port()
    with echoing(lab, name):
        live(lab, name, began, port_dns=port("udp", outside, 80))
        assert echoed(outside) == b"ping"
        live(lab, name, began)
    assert echoed(outside) == b""


def echoed(outside: int) -> bytes:
    """What comes back; empty when nobody listens on the host. One that does not serve yet is given a moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(1)
        one.connect(("127.0.0.1", outside))
        for _ in range(60):
            try:
                one.send(b"ping")
                return one.recv(100)
            except ConnectionRefusedError:
                return b""
            except TimeoutError:
                continue
    return b"nothing"


@pytest.mark.parametrize("before", [True, False], ids=["moved", "new"])
def test_a_port_that_is_taken_is_refused_and_the_old_one_stays(lab: Lab, before: bool) -> None:
    old = own_port()
    devices = {"port_web": port("tcp", old, 80)} if before else {}
    name, began = start(lab, **devices)
    listening(lab, name)
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        said = refused(lab, name, began, port_web=port("tcp", taken, 80))
    assert f"port-web: tcp:127.0.0.1:{taken} is taken by another program" in said and "ss -lnp" in said
    assert hear(old) == ("hello" if before else "")
    live_or_same = lab.converge(lab.container(name, devices=spelled(devices)))
    assert live_or_same[0].result in (Result.APPLIED, Result.UNCHANGED)
    assert ("port-web" in lab.raw("instances", name)["devices"]) is before


def test_a_port_whose_forwarder_died_is_drift(lab: Lab) -> None:
    outside = own_port()
    name, began = start(lab, port_web=port("tcp", outside, 80))
    listening(lab, name)
    assert hear(outside) == "hello"
    kill_forwarder(outside)
    assert hear(outside) == ""
    assert change_of(lab, name, port_web=port("tcp", outside, 80)).note.startswith("nothing listens for it")
    live(lab, name, began, port_web=port("tcp", outside, 80))
    assert hear(outside) == "hello"


def kill_forwarder(outside: int) -> None:
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"forkproxy" in words and f"tcp:127.0.0.1:{outside}".encode() in words:
                handle = os.pidfd_open(int(entry.name))
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [])
                os.close(handle)
