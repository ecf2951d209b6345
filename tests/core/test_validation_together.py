"""What is wrong between documents, each of which is right by itself; both places are named."""

from __future__ import annotations

import pytest

from reconciler import validation
from reconciler.model import ResourceId
from reconciler.validation.again import Claimed
from tests.support.manifests import documents, written

CONTAINER = written("Container", "image: a")
MACHINE = written("VirtualMachine")


def clashes(*texts: str) -> list[str]:
    return [str(one).partition("\n")[0] for one in validation.validate(documents(*texts))]


def test_one_name_twice_in_one_file() -> None:
    assert clashes(f"{CONTAINER}---\n{CONTAINER}") == [
        "0.yaml:11:9: Container/web: declared for the second time; the first is at 0.yaml:4:9"
    ]


def test_one_name_twice_in_two_files() -> None:
    assert clashes(CONTAINER, CONTAINER) == [
        "1.yaml:4:9: Container/web: declared for the second time; the first is at 0.yaml:4:9"
    ]


def test_a_vm_and_a_container_of_one_name() -> None:
    assert clashes(MACHINE, CONTAINER) == [
        '1.yaml:4:9: Container/web: there is a VirtualMachine named "web" as well, at 0.yaml:4:9'
    ]


def test_other_kinds_may_share_a_name() -> None:
    assert clashes(CONTAINER, written("Profile"), written("Network"), written("Volume")) == []


def test_what_is_renamed_is_not_there_any_more() -> None:
    renamed = written("VirtualMachine", "", "new", "\n  renamedFrom: old")
    assert (
        "1.yaml:5:16: VirtualMachine/new: metadata.renamedFrom: VirtualMachine/old is declared itself"
        in clashes(written("VirtualMachine", "", "old"), renamed)[0]
    )
    other = written("VirtualMachine", "", "other", "\n  renamedFrom: old")
    assert "VirtualMachine/new comes from old already, at 0.yaml:1:1" in clashes(renamed, other)[0]
    assert clashes(renamed, written("Network", "", "old")) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            written("Network", "ipv4: {address: 10.0.0.1/24}", "one"),
            written("Network", "ipv4: {address: 10.0.0.2/24}", "two"),
            "1.yaml:6:19: Network/two: ipv4.address: the subnet 10.0.0.0/24 is that of Network/one at 0.yaml:6:19",
        ),
        (
            written("VirtualMachine", "nics: [{name: a, mac: '52:54:00:00:00:0a'}]", "one"),
            written("VirtualMachine", "nics: [{name: a, mac: '52:54:00:00:00:0A'}]", "two"),
            "1.yaml:6:25: VirtualMachine/two: nics[0].mac: 52:54:00:00:00:0A is that of VirtualMachine/one",
        ),
        (
            written("Disk", "size: 1GiB\npath: /srv/x.qcow2", "one"),
            written("VirtualMachine", "disks: [{name: a, path: /srv/./x.qcow2, format: qcow2}]", "two"),
            "1.yaml:6:27: VirtualMachine/two: disks[0].path: /srv/x.qcow2 is that of Disk/one at 0.yaml:7:9",
        ),
        (
            written("VirtualMachine", "disks: [{name: a, path: /srv/x, format: raw, readOnly: true}]", "one"),
            written("VirtualMachine", "disks: [{name: b, path: /srv/x, format: raw}]", "two"),
            "0.yaml:6:27: VirtualMachine/one: disks[0].path: /srv/x is that of VirtualMachine/two at 1.yaml:6:27",
        ),
        (
            written("PortForward", "listen: 127.0.0.1:80\ntarget: Container/a\nport: 80", "one"),
            written("PortForward", "listen: 127.0.0.1:80\ntarget: Container/b\nport: 80", "two"),
            "1.yaml:6:11: PortForward/two: listen: 127.0.0.1:80 (tcp) is that of PortForward/one",
        ),
    ],
)
def test_two_that_want_the_same(first: str, second: str, expected: str) -> None:
    (line,) = clashes(first, second)
    assert line.startswith(expected)


def test_what_only_looks_alike() -> None:
    network = "host: far\nipv4: {address: 10.0.0.1/24}"
    disks = "disks: [{name: a, path: /srv/iso, format: raw, readOnly: true}]"
    listen = "listen: 127.0.0.1:80\ntarget: Container/a\nport: 80"
    assert clashes(
        written("Network", "ipv4: {address: 10.0.0.1/24}", "one"),
        written("Network", network, "two"),
        written("VirtualMachine", disks, "three"),
        written("VirtualMachine", disks, "four"),
        written("PortForward", listen, "five"),
        written("PortForward", f"{listen}\nprotocol: udp", "six"),
    ) == []  # fmt: skip


def test_a_vm_that_gives_a_host_does_not_stand_for_another_lxd() -> None:
    vm = written("VirtualMachine", "lxd: true", "far")
    assert "would give a Host that there is already" in clashes(vm, written("Host", "lxd: {socket: auto}", "far"))[0]
    assert "this machine's LXD" in clashes(written("VirtualMachine", "lxd: true", "local"))[0]
    assert clashes(vm, written("Host", "lxd: {virtualMachine: far}", "far")) == []
    assert clashes(vm) == []


def forward(name: str, listen: str, rest: str = "target: Container/a\nport: 80") -> str:
    return written("PortForward", f"listen: '{listen}'\n{rest}", name)


def proxy(listen: str, rest: str = "") -> str:
    return written(
        "Container", f"image: a\ndevices: {{p: {{type: proxy, listen: '{listen}', connect: x{rest}}}}}", "raw"
    )


@pytest.mark.parametrize(
    ("listen", "other", "expected"),
    [
        ("127.0.0.1:80", forward("two", "0.0.0.0:80"), "listen: 0.0.0.0:80 (tcp) is that of PortForward/one"),
        ("0.0.0.0:80", forward("two", "127.0.0.1:80"), "listen: 127.0.0.1:80 (tcp) is that of PortForward/one"),
        ("[::]:80", forward("two", "127.0.0.1:80"), "listen: 127.0.0.1:80 (tcp) is that of PortForward/one"),
        ("[::1]:80", forward("two", "[0::1]:80"), "listen: [::1]:80 (tcp) is that of PortForward/one"),
        ("127.0.0.1:80", proxy("tcp:127.0.0.1:80"), "devices.p.listen: 127.0.0.1:80 (tcp) is that of PortForward/one"),
        ("127.0.0.1:85", proxy("tcp:0.0.0.0:22,80-90"), "devices.p.listen: 0.0.0.0:85 (tcp) is that of PortForward/"),
    ],
)
def test_a_port_is_listened_on_once(listen: str, other: str, expected: str) -> None:
    (problem,) = clashes(CONTAINER.replace("web", "a"), forward("one", listen), other)
    assert expected in problem


@pytest.mark.parametrize(
    "other",
    [
        forward("two", "127.0.0.2:80"),
        forward("two", "127.0.0.1:81"),
        forward("two", "[::1]:80"),
        forward("two", "127.0.0.1:80", "target: Container/a\nport: 80\nprotocol: udp"),
        proxy("tcp:127.0.0.1:80", ", bind: instance"),
        proxy("unix:/run/x.sock"),
    ],
)
def test_other_ports_are_no_clash(other: str) -> None:
    assert clashes(CONTAINER.replace("web", "a"), forward("one", "127.0.0.1:80"), other) == []


def test_another_machine_has_ports_of_its_own() -> None:
    lxd = "lxd: {url: 'https://far:8443', serverCertificate: s, clientCertificate: c, clientKey: k}"
    far = written("Container", "image: a\nhost: far\ndevices: {p: {type: proxy, listen: 'tcp:127.0.0.1:80'}}", "b")
    here = forward("one", "127.0.0.1:80")
    assert clashes(CONTAINER.replace("web", "a"), here, far, written("Host", lxd, "far")) == []


def test_what_leads_into_a_vm_is_listened_on_here() -> None:
    vm, inside = written("VirtualMachine", "lxd: true", "far"), written("Container", "image: a\nhost: far", "in")
    into = forward("one", "127.0.0.1:80", "target: Container/in\nport: 80")
    (problem,) = clashes(CONTAINER.replace("web", "a"), vm, inside, into, forward("two", "127.0.0.1:80"))
    assert "is that of PortForward/one" in problem
    device = "{type: proxy, listen: 'tcp:127.0.0.1:80', connect: x}"
    raw = written("Container", f"image: a\nhost: far\ndevices: {{p: {device}}}", "raw")
    assert clashes(vm, inside, into, raw) == []


def test_a_port_that_is_found_has_a_name_that_is_nobody_elses() -> None:
    follower = written("PortForward", "{target: Container/web, listen: 127.0.0.1, port: auto}", "dev")
    other = written("PortForward", "{target: Container/web, listen: '127.0.0.1:80', port: 22}", "dev-8080")
    [problem] = clashes(CONTAINER, follower, other)
    assert problem.startswith("2.yaml:4:9: PortForward/dev-8080: metadata.name: so is called what PortForward/dev")
    for free in ("dev-a", "dev-808080", "web-8080"):
        assert clashes(CONTAINER, follower, other.replace("dev-8080", free)) == []
    stated = written("PortForward", "{target: Container/web, listen: '127.0.0.1:1', port: 1}", "dev")
    assert clashes(CONTAINER, stated, other) == []
    before, named = documents(CONTAINER, follower), documents(other)
    every = {ResourceId(one.data["kind"], one.data["metadata"]["name"]): one for one in (*before, *named)}
    assert not Claimed(before).still_right([], named, every)
