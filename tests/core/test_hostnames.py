"""names/lines, names/block, reachable: which names guests have, and by which addresses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from reconciler.cli.hosts import is_whole
from reconciler.model import QEMU, Desired, Observed, Power, ResourceId, Snapshot, Spec, World
from reconciler.names.block import maintain
from reconciler.names.lines import Names, carried_over, kept, names
from reconciler.problems import Problem
from reconciler.reachable import ipv4_networks, ipv6_networks, neighbours
from tests.core.test_naming import TERMINA

FORWARDS = {"web": {"listen": "127.0.0.1:8080", "port": 1}, "ssh": {"listen": "127.0.0.5:22", "port": 2}}
PORT = {"type": "proxy", "listen": "tcp:0.0.0.0:80", "connect": "tcp:127.0.0.1:80"}


def container(name: str, host: str = "local", devices: Spec | None = None, power: Power = Power.RUNNING) -> Observed:
    needs = (TERMINA,) if host == "termina" else ()
    spec = {"devices": devices or {}}
    return Observed(ResourceId("Container", name), f"lxd/{host}", spec, power, owned=True, needs=needs)


def machine(name: str, spec: Spec | None = None, owned: bool = True) -> Observed:
    return Observed(ResourceId("VirtualMachine", name), QEMU, spec or {}, Power.RUNNING, owned=owned)


TOWER = [
    machine("termina", {"forwards": FORWARDS}),
    container("penguin", "termina", {"port-web": PORT}),
    container("deaf", "termina"),
    container("web"),
    container("both"),
    container("both", "termina", {"port-ssh": PORT}),
    container(
        "proxied", devices={"port-x": PORT, "port-y": {**PORT, "listen": "udp:[::]:53"}, "eth0": {"type": "nic"}}
    ),
    container("asleep", power=Power.STOPPED),
    machine("strange", {"forwards": FORWARDS}, owned=False),
]
OWN = {("lxd/local", ResourceId("Container", name)): ["fd42::7", "10.1.2.3"] for name in ("web", "both", "asleep")}


def test_each_guest_that_can_be_reached_has_its_names() -> None:
    found = names(TOWER, OWN)
    assert found.lines == [
        "127.0.0.5\tboth.termina.linux.test",
        "127.0.0.1\tpenguin.termina.linux.test penguin.linux.test",
        "127.0.0.1\tproxied.linux.test",
        "::1\tproxied.linux.test",
        "10.1.2.3\tweb.linux.test",
        "fd42::7\tweb.linux.test",
        "127.0.0.1\ttermina.linux.test",
        "127.0.0.5\ttermina.linux.test",
    ]
    assert [str(one).splitlines()[0] for one in found.problems] == [
        "Container/both: another guest is called both, too: no name",
        "termina/deaf: nothing to reach it by: no name",
    ]


@pytest.mark.parametrize("name", ["x\n8.8.8.8\tbank.example", "a b", "evil.example", "-x", "", "x" * 64, "\u0430pp"])
def test_what_a_guest_calls_its_containers_never_makes_lines_of_its_own(name: str) -> None:
    liar = container(name, "termina", {"port-web": PORT})
    found = names([machine("termina", {"forwards": FORWARDS}), liar], {})
    assert found.lines == ["127.0.0.1\ttermina.linux.test", "127.0.0.5\ttermina.linux.test"]
    assert [one.summary for one in found.problems] == ["it is called what no host can be called: no name"]
    assert "\n8.8.8.8" not in str(found.problems[0])


def test_a_port_on_another_machine_is_no_way_to_a_container_from_here() -> None:
    host = Observed(ResourceId("Host", "far"), "lxd/far", {"lxd": {"url": "https://192.0.2.1:8443"}}, owned=True)
    found = names([host, container("web", "far", {"port-x": PORT})], {})
    assert found.lines == []
    assert [str(one) for one in found.problems] == ["Container/web: it is on another machine: no name"]


def test_names_of_what_could_not_be_looked_at_stay() -> None:
    before = ["1.1.1.1\ta.linux.test", "2.2.2.2\tb.vm.linux.test b.linux.test", "# a note"]
    assert kept(before, ["3.3.3.3\ta.linux.test"]) == ["2.2.2.2\tb.vm.linux.test b.linux.test", "# a note"]


CARD, LOOPBACK = "10.1.2.3\ttermina.linux.test", "127.0.0.1\ttermina.linux.test"
SILENT = Names([LOOPBACK, "10.1.2.9\tweb.linux.test"], [], frozenset({"termina.linux.test"}))


@pytest.mark.parametrize("whole", [True, False])
def test_a_guest_that_says_nothing_for_a_moment_keeps_the_address_that_it_had(whole: bool) -> None:
    """Not the one of its ports instead: its names would go to and fro with every moment that its agent is busy."""
    before = [CARD, "fd42::3\ttermina.linux.test", "10.1.2.4\tweb.linux.test"]
    now = ["10.1.2.9\tweb.linux.test", CARD, "fd42::3\ttermina.linux.test"]
    assert carried_over(before, SILENT, whole) == now
    assert carried_over(now, SILENT, whole) == now
    swapped = [CARD, "10.1.2.9\tweb.linux.test"]
    assert carried_over(swapped, SILENT, whole) == swapped  # nothing to write
    assert carried_over([], SILENT, whole) == SILENT.lines
    assert carried_over(before, Names(["10.1.2.9\tweb.linux.test"], []), whole=True) == ["10.1.2.9\tweb.linux.test"]


def test_who_says_nothing_is_told_from_who_has_nothing() -> None:
    machine_id = ResourceId("VirtualMachine", "termina")
    told = names(TOWER, {(QEMU, machine_id): None})
    assert told.silent == {"termina.linux.test"} and LOOPBACK in told.lines
    assert names(TOWER, {}).silent == frozenset()
    bare = names([machine("termina")], {(QEMU, machine_id): None})
    assert bare.lines == [] and bare.silent == {"termina.linux.test"}
    assert [one.summary for one in bare.problems] == ["it does not say by what address it is reached"]


def seen(*machines: Observed, silent: str | None = None) -> World:
    """A world in which these VMs are, and one backend keeps silent."""
    problem = Problem("it does not answer")
    there = Snapshot(QEMU, 0.0, {one.id: one for one in machines}, problem if silent == QEMU else None)
    other = silent if silent not in (None, QEMU) else "lxd/far"
    return World({QEMU: there, other: Snapshot(other, 0.0, {}, problem if silent == other else None)})


@pytest.mark.parametrize(
    ("world", "whole"),
    [
        (seen(), True),
        (seen(silent="lxd/termina"), True),  # it was deleted
        (seen(replace(machine("termina"), power=Power.STOPPED), silent="lxd/termina"), True),
        (seen(machine("termina"), silent="lxd/termina"), False),
        (seen(replace(machine("termina"), power=None), silent="lxd/termina"), False),
        (seen(silent="lxd/inner"), True),
        (seen(machine("outer"), silent="lxd/inner"), False),
        (seen(silent="lxd/far"), False),
        (seen(silent="lxd/local"), False),
        (seen(silent=QEMU), False),
    ],
)
def test_what_is_in_a_vm_that_is_down_does_not_keep_silent(world: World, whole: bool) -> None:
    far = Desired(ResourceId("Host", "far"), "lxd/far", {"lxd": {"url": "https://192.0.2.1:8443"}})
    inner = Desired(ResourceId("Host", "inner"), "lxd/inner", {"lxd": {"virtualMachine": "outer"}})
    assert is_whole(world, [far, inner]) is whole


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
lxdbr0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
far\t0000000B\t0100A8C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0
"""
IPV6 = """fd420000000000000000000000000000 40 00000000000000000000000000000000 00 {zero} 00000100 0 0 00000001 lxdbr0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 {zero} 00000100 0 0 00000001 lxdbr0
fd430000000000000000000000000000 40 00000000000000000000000000000000 00 {zero} 00000100 0 0 00000003 eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 {zero} 00000100 0 0 00000001 eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 {zero} 00000100 0 0 00000001 lo
""".format(zero="0" * 32)


def test_networks_of_this_host_are_those_without_a_router() -> None:
    assert list(ipv4_networks(ROUTES)) == [ip_network("10.77.0.0/24")]
    assert list(ipv6_networks(IPV6)) == [ip_network("fd42::/64")]


@pytest.mark.parametrize("claimed", ["8.8.8.8", "127.0.0.1", "::1", "10.77.1.1", "nonsense", "10.77.0.5\tevil.example"])
def test_what_a_guest_says_it_is_has_to_be_next_to_us(claimed: str) -> None:
    assert neighbours([claimed, "10.77.0.5"], [ip_network("10.77.0.0/24")]) == ["10.77.0.5"]


def test_what_a_killed_call_left_beside_the_file_goes(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost\n")
    for name in (".hosts.0123abcd.reconciler", ".hosts.mine.reconciler", ".other.0123abcd.reconciler"):
        (tmp_path / name).write_text("")
    maintain(file, Names(["10.0.0.1\ta.linux.test"], []), whole=True)
    assert file.read_text() == "127.0.0.1 localhost\n# begin reconciler\n10.0.0.1\ta.linux.test\n# end reconciler\n"
    assert {one.name for one in tmp_path.iterdir()} == {"hosts", ".hosts.mine.reconciler", ".other.0123abcd.reconciler"}
