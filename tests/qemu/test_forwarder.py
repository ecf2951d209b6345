"""Ports of the host lead to a guest on a bridge: through one process beside its QEMU, which lives and ends with it."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import companions
from reconciler.backends.qemu.forwarding import keeper
from reconciler.backends.qemu.forwarding.room import MOST
from reconciler.model import QEMU, Desired, Verb
from reconciler.observation import observe
from reconciler.planning.attaching import clashes
from tests.qemu.test_hotplug import boot_id, but, listens, live, until
from tests.support.qemu import Lab, give_address
from tests.support.unique import own_net, own_port

NET, WIDE = own_net(), own_net()
HOST, GUEST, ELSEWHERE = f"{NET}.77.1", f"{NET}.77.20", f"{NET}.77.99"
BIG = secrets.token_bytes(1 << 20)


def udp_echo() -> bytes:
    """A Linux program that sends back every datagram that it gets on port 53: the guest's busybox has none."""
    code = bytes.fromhex(
        "31d2 6a02 5e 89f7 6a29 58 0f05 89c3"  # socket(AF_INET, SOCK_DGRAM, 0)
        "6a00 6802000035 4889e5 89df 4889ee 6a10 5a 6a31 58 0f05"  # bind(…, 0.0.0.0:53, 16)
        "4881ec00200000 6a10 4989e1 4989e8 4531d2 ba00100000 488d742408 89df 6a2d 58 0f05"  # recvfrom(…)
        "4159 4989e8 4531d2 89c2 4889e6 89df 6a2c 58 0f05 ebce"  # sendto(…), and again
    )
    size, start = 120 + len(code), 0x400000
    header = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 0x1000) + code


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge that nobody else has, with an address of the host's."""
    name = f"rf{secrets.token_hex(4)}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "add", f"{HOST}/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)


def on(bridge: str) -> dict[str, Any]:
    return {"lan": {"type": "bridge", "bridge": bridge, "model": "virtio-net-pci"}}


def port_of(port: int, inner: int = 80, protocol: str = "tcp", address: str = "127.0.0.1") -> dict[str, Any]:
    return {"listen": f"{address}:{port}", "port": inner, "protocol": protocol}


def guest(lab: Lab, bridge: str, **spec: Any) -> Desired:
    """A Linux guest on the bridge that sends back what it gets on tcp 80 and udp 53."""
    vm = lab.busybox(nics=on(bridge), **spec)
    lab.converge(vm)
    give_address(lab, f"{GUEST}/24")
    lab.inside("sh", "-c", f"nc -ll -p 80 -e cat >/dev/null 2>&1 & {listens(80)}")
    program = base64.b64encode(udp_echo()).decode()
    lab.inside("sh", "-c", f"echo {program} | base64 -d > /tmp/echo; chmod +x /tmp/echo")
    lab.inside("sh", "-c", f"/tmp/echo >/dev/null 2>&1 & {listens(53, 'udp')}")
    return vm


def echoed(port: int, data: bytes = b"hello", host: str = "127.0.0.1") -> bytes:
    """What comes back when nothing more is said."""
    with socket.create_connection((host, port), 60) as sock:
        sock.settimeout(60)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def say(sock: socket.socket, word: bytes) -> bytes:
    sock.sendall(word)
    return sock.recv(64)


def forwarder(lab: Lab, name: str = "vm") -> int:
    """Its pid."""
    (pid,) = companions.holders(keeper.companion(lab.folder(name)).alive)
    return pid


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_ports_come_and_go_under_connections_that_stand(linux: Lab, bridge: str) -> None:
    one, two = own_port(), own_port()
    vm = guest(linux, bridge, forwards={"web": port_of(one)})
    before, pid = boot_id(linux), forwarder(linux)
    assert echoed(one, BIG) == BIG
    with socket.create_connection(("127.0.0.1", one), 60) as standing:
        standing.settimeout(60)
        assert say(standing, b"one") == b"one"
        live(linux, but(vm, forwards={"web": port_of(one), "more": port_of(two)}))
        assert echoed(two) == b"hello"
        assert say(standing, b"two") == b"two"
        live(linux, but(vm, forwards={"more": port_of(two, 81)}))
        with pytest.raises(ConnectionRefusedError):
            echoed(one)
        with pytest.raises(ConnectionResetError):
            echoed(two)  # nobody listens there in the guest
        assert say(standing, b"three") == b"three"
        assert (boot_id(linux), forwarder(linux)) == (before, pid)
    live(linux, vm if "forwards" not in vm.spec else but(vm, forwards=None))
    assert companions.holders(keeper.companion(linux.folder()).alive) == []
    assert is_free(one)
    assert is_free(two)
    assert boot_id(linux) == before


def test_datagrams_find_their_way_there_and_back(linux: Lab, bridge: str) -> None:
    port = own_port()
    guest(linux, bridge, forwards={"dns": port_of(port, 53, "udp")})
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.connect(("127.0.0.1", port))
        assert say(sock, b"one") == b"one"
        assert say(sock, b"two") == b"two"


def test_a_guest_whose_address_changes_is_found_again(linux: Lab, bridge: str) -> None:
    port, udp = own_port(), own_port()
    guest(linux, bridge, forwards={"web": port_of(port), "dns": port_of(udp, 53, "udp")})
    assert echoed(port) == b"hello"
    linux.inside("sh", "-c", f"ip addr del {GUEST}/24 dev eth0; ip addr add {ELSEWHERE}/24 dev eth0")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.connect(("127.0.0.1", udp))
        assert say(sock, b"here?") == b"here?"
    assert echoed(port) == b"hello"


def test_on_a_wide_network_the_guests_own_word_helps(linux: Lab, bridge: str) -> None:
    subprocess.run(["ip", "addr", "add", f"{WIDE}.0.1/16", "dev", bridge], check=True)
    vm = linux.busybox(nics=on(bridge))
    linux.converge(vm)
    give_address(linux, f"{WIDE}.200.20/16")
    linux.inside("sh", "-c", f"nc -ll -p 80 -e cat >/dev/null 2>&1 & {listens(80)}")
    port = own_port()
    linux.converge(but(vm, forwards={"web": port_of(port)}))
    assert echoed(port) == b"hello"


def test_it_has_no_rights_and_holds_only_what_it_was_given(lab: Lab, bridge: str) -> None:
    lab.converge(lab.idle(nics=on(bridge), forwards={"web": port_of(own_port())}))
    pid = forwarder(lab)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    assert set(status["Uid"]) == set(status["Gid"]) == {str(lab.record().uid)}
    assert (status["Groups"], status["NoNewPrivs"]) == ([], ["1"])
    assert {int(status[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert os.getsid(pid) == pid
    files = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    assert {name for name in files if name.startswith("/")} == {
        "/dev/null",
        *(str(lab.folder().path.resolve() / f"forwarder.{end}") for end in ("alive", "log")),
    }


def test_a_guest_cannot_have_others_reached_by_claiming_their_addresses(lab: Lab, bridge: str) -> None:
    claimed, mac = f"198.51.100.{NET[3:]}", "52:54:00:12:34:56"
    subprocess.run(["ip", "addr", "add", f"{claimed}/32", "dev", "lo"], check=True)
    try:
        with socket.create_server((claimed, 0)) as other:
            port, inner = own_port(), other.getsockname()[1]
            nics = {"lan": {**on(bridge)["lan"], "mac": mac}}
            lab.converge(lab.idle(nics=nics, forwards={"web": port_of(port, inner)}))
            known = ["ip", "neigh", "replace", claimed, "lladdr", mac, "dev", bridge, "nud", "permanent"]
            subprocess.run(known, check=True)  # as after a word of the guest's
            other.settimeout(5)
            with socket.create_connection(("127.0.0.1", port), 5), pytest.raises(TimeoutError):
                other.accept()
    finally:
        subprocess.run(["ip", "addr", "del", f"{claimed}/32", "dev", "lo"], check=True)


@pytest.mark.parametrize(("number", "drift"), [(signal.SIGKILL, "forwards.web"), (signal.SIGSTOP, "forwards.web.port")])
def test_one_that_is_killed_or_stuck_is_drift_and_healed(
    lab: Lab, bridge: str, number: signal.Signals, drift: str
) -> None:
    port = own_port()
    vm = lab.idle(nics=on(bridge), forwards={"web": port_of(port)})
    lab.converge(vm)
    pid, qemu = forwarder(lab), lab.process()
    os.kill(pid, number)
    until(lambda: [change.field for change in lab.changes(vm)], [drift])
    assert clashes({vm.id: vm}, observe({QEMU: lab.backend}, listening=True)) == {}  # no other program is in the way
    lab.converge(vm)
    assert forwarder(lab) != pid
    assert lab.process() == qemu
    socket.create_connection(("127.0.0.1", port), 60).close()


def test_it_ends_with_its_qemu_whoever_ends_that(lab: Lab, bridge: str) -> None:
    port = own_port()
    vm = lab.idle(nics=on(bridge), forwards={"web": port_of(port)})
    lab.converge(vm)
    lab.signal(signal.SIGKILL)
    until(lambda: is_free(port), True)  # nobody of us was there
    lab.converge(vm)
    lab.backend.power(vm.id, "restart", True, 5, lambda _: None)
    socket.create_connection(("127.0.0.1", port), 60).close()
    assert lab.verbs(vm) == [Verb.NOOP]
    os.kill(forwarder(lab), signal.SIGSTOP)
    lab.converge(but(vm, power="stopped"))
    assert is_free(port)
    assert companions.holders(keeper.companion(lab.folder()).alive) == []


def test_a_port_that_cannot_be_had_is_named_and_no_other_is_taken(lab: Lab, bridge: str) -> None:
    vm, free = lab.idle(nics=on(bridge)), own_port()
    lab.converge(vm)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = port_of(other.getsockname()[1])
        problem = lab.fail(but(vm, forwards={"a": port_of(free), "web": taken}))
        assert problem.summary == f"forwards.web: {taken['listen']} cannot be had on this host: Address already in use"
        assert problem.hint == "another program listens there"
        assert is_free(free)
    foreign = port_of(8080, address="203.0.113.7")
    problem = lab.fail(but(vm, forwards={"a": port_of(free), "web": foreign}))
    assert problem.hint == "it is no address of this host"
    assert is_free(free)
    lab.converge(but(vm, forwards={"a": port_of(free), "web": taken}))


def test_any_address_of_the_host_will_do(linux: Lab, bridge: str) -> None:
    port, inside = own_port(), own_port()
    forwards = {"six": port_of(port, address="[::1]"), "own": port_of(inside, address=HOST)}
    guest(linux, bridge, forwards=forwards)
    assert echoed(port, host="::1") == b"hello"
    assert echoed(inside, host=HOST) == b"hello"


@pytest.mark.proof
def test_no_more_connections_than_there_is_room_for(lab: Lab, bridge: str) -> None:
    port = own_port()
    lab.converge(lab.idle(nics=on(bridge), forwards={"web": port_of(port)}))
    pid = forwarder(lab)
    with closing(Many(port, MOST + 40)):
        until(lambda: sockets(pid) >= MOST, True)
        time.sleep(0.5)
        assert sockets(pid) <= MOST + 5
    until(lambda: sockets(pid) < 10, True)  # a guest that is not there is given up


def sockets(pid: int) -> int:
    """How many it has open; those that close while they are counted count for nothing."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += os.readlink(link).startswith("socket:")
    return found


class Many:
    """That many connections."""

    def __init__(self, port: int, count: int) -> None:
        self.socks = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(count)]

    def close(self) -> None:
        for sock in self.socks:
            sock.close()
