"""What schemas cannot say of one document: contradictions, amounts that no machine has, odd paths."""

# ruff: noqa: E501  a table reads best with one case a line
from __future__ import annotations

import os

import pytest

from reconciler.validation.machine import this_machine
from tests.support.manifests import problems, said, written

CPUS = this_machine().cpus
ROOTFS = f"rootfsUrl: 'https://b', rootfsSha256: {'b' * 64}"


@pytest.mark.parametrize(
    ("kind", "spec", "expected", "hint"),
    [
        ("Container", "image: a\nephemeral: true\npower: stopped", "7:14: ephemeral: contradicts power: stopped", "take one"),
        ("Container", "image: a\nmemory: 512", '7:11: memory: expected a size such as "2GiB", got 512 bytes', '"512MiB"?'),
        ("Container", "image: a\nmemory: {size: 2GiB, max: 1GiB}", "7:29: memory.max: is less than size", "grow"),
        ("Container", "image: a\nmemory: 900TiB", "7:11: memory: 900TiB are more than this machine has", "less"),
        ("Container", "image: a\nmemory: {size: 1GiB, max: 900TiB}", "memory.max: 900TiB are more than", "less"),
        ("Container", "image: a\ncpus: {count: 2, max: 1}", "7:25: cpus.max: is less than count", "grow"),
        ("Container", "image: a\ncpus: {count: 0-0, max: 1}", "contradicts a count that names CPUs", "number"),
        ("Container", "image: a\ncpus: '0'", '7:9: cpus: "0" may mean how many, or which one', '"0-0" for that one'),
        ("Container", "image: a\ncpus: {count: '2'}", "7:17: cpus.count:", "write 2 for so many CPUs"),
        ("Container", "image: a\ncpus: 1000", "7:9: cpus: 1000 CPUs are far more than this machine has", "at most"),
        ("Container", "image: a\ncpus: 0-999", '7:9: cpus: "0-999": this machine has CPUs 0-', ""),
        ("Container", "image: a\ncpus: 1-0", '7:9: cpus: "1-0" runs backwards', 'did you mean "0-1"?'),
        ("Container", "image: a\nfiles: [{path: /a/../b, content: x}]", "7:18: files[0].path:", "without"),
        ("Container", "image: a\nfiles: [{path: /a/, content: x}]", "expected the path of a file", "name is missing"),
        ("Container", "image: a\nfiles: [{path: //a, content: x}]", "has an empty part", 'one "/"'),
        (
            "Container",
            "image: a\nfiles: [{path: /a, content: x}, {path: /a, content: y}]",
            '7:42: files[1].path: "/a" is already that of entry 1',
            "a path of its own",
        ),
        ("Container", "image: a\nuser: {name: root}", "7:16: user.name: root is there in any case", "people"),
        ("Container", "image: a\nuser: {name: a, home: /home/../etc}", "7:25: user.home:", "without"),
        ("Container", "image: a\nready: {log: '('}", "7:16: ready.log: not a regular expression", "backslash"),
        ("Container", "image: a\nrun: [{command: ['']}]", "run[0].command[0]: the program's name is empty", ""),
        ("Container", "image: a\nconfig: {volatile.x: 1}", "7:12: config.volatile.x: is LXD's own memory", "take it out"),
        ("Container", "image: a\nconfig: {user.reconciler.id: 1}", "is how we know what is ours", "take it out"),
        ("Container", "image: a\ncpus: 1\nconfig: {limits.cpu: 1}", "config.limits.cpu: says the same as cpus", "one"),
        ("Container", "image: a\nnesting: false\nconfig: {security.nesting: true}", "says the same as nesting", "one"),
        (
            "Container",
            "image: a\ncloudInit: {userData: x}\nconfig: {cloud-init.user-data: y}",
            "says the same as cloudInit.userData",
            "keep one",
        ),
        *(
            ("Container", f"image: a\ndevices: {{{name}: {{type: none}}}}", f"7:13: devices.{name}: this name is not free", "")
            for name in ("share-a", "device-a", "port-a", "volume-a")
        ),
        ("Container", "image: a\ndevices: {a: {type: unix-char, source: dev/x}}", "devices.a.source: expected an abs", ""),
        ("Container", "image: a\ndevices: {a: {type: unix-char, path: dev/x}}", "devices.a.path: expected an abs", "/dev/x"),
        ("Container", "image: a\ndevices: {a: {type: disk, pool: b}}", "devices.a: a disk needs path", ""),
        (
            "Container",
            "image: a\ndevices: {a: {type: disk, path: /, pool: p}, b: {type: disk, path: /, pool: p}}",
            'devices.b.path: "/" is already that of a',
            "one root disk",
        ),
        ("Container", "image: a\nignore: [power, memroy.size]", '7:19: ignore[1]: Container has no field "memroy"', '"memory"?'),
        ("Container", "image: {source: {build: {recipe: busybox, kernel: k}}}", "image.source.build.kernel: a container", ""),
        ("Container", "image: a\nlifetime: session\nephemeral: true", "lifetime: session contradicts ephemeral", "deletes"),
        ("Container", "image: a\nlifetime: boot\nconfig: {boot.autostart: true}", "says the same as lifetime", "keep one"),
        ("VirtualMachine", "lifetime: always\nrestart: never", "restart: contradicts lifetime: always", "boot"),
        ("VirtualMachine", "memory: 900TiB", "6:11: memory: 900TiB are more than", "ask for less"),
        ("VirtualMachine", f"cpus: {CPUS * 8 + 1}", "CPUs are far more than this machine has", f"{CPUS * 8} at most"),
        ("VirtualMachine", "nics: [{name: a}, {name: a}]", '6:28: nics[1].name: "a" is already that of entry 1', "own"),
        ("VirtualMachine", "disks: [{name: a, size: 1G}, {name: a, size: 1G}]", "disks[1].name:", "own"),
        ("VirtualMachine", "nics: [{name: a, mac: '01:00:00:00:00:01'}]", "is a group address", "even"),
        ("VirtualMachine", "nics: [{name: a, mac: '00:00:00:00:00:00'}]", "is no address", ""),
        ("VirtualMachine", "boot: {kernel: a}\nfirmware: uefi", "firmware: contradicts boot.kernel", ""),
        ("VirtualMachine", "guestAgent: false\nready: {guestAgent: true}", "contradicts guestAgent: false", ""),
        ("VirtualMachine", "boot: {image: {source: {server: 'https://a', alias: b}}}", "image servers give images for", ""),
        ("Image", "type: container\nsource: {file: a, format: raw}", "7:21: source.format: only disk images", ""),
        ("Image", "type: virtual-machine\nsource: {file: a, rootfs: b}", "source.rootfs: only images for containers", ""),
        (
            "Image",
            f"type: virtual-machine\nsource: {{url: 'https://a', sha256: {'a' * 64}, {ROOTFS}}}",
            "source.rootfsUrl: only images for containers",
            "",
        ),
        ("Image", "type: virtual-machine\nsource: {build: {recipe: debian, kernel: a}}", "recipe debian has no", "suite"),
        ("Image", "type: virtual-machine\nsource: {server: 'https://a', alias: b}", "image servers give images", ""),
        ("Image", "type: container\nsource: {build: {recipe: busybox, suite: a}}", "recipe busybox has no use for it", "files"),
        ("Image", "type: container\nsource: {build: {recipe: lxd-host}}", "makes images for virtual machines", ""),
        (
            "Image",
            "type: container\nsource: {build: {recipe: busybox, files: [{path: /../a, content: x}]}}",
            "source.build.files[0].path:",
            "without",
        ),
        ("Network", "ipv4: {address: 10.0.0.0/24}", "ipv4.address: 10.0.0.0/24 is no host's address", '"10.0.0.1/24"?'),
        ("Network", "ipv4: {address: 10.0.0.255/24}", "is no host's address", ""),
        ("Network", "ipv4: {address: 10.0.0.1/99}", "expected an address such as", ""),
        ("Network", "ipv4: {address: 10.0.0.1/32}", "leaves no address for guests", "bigger"),
        ("Network", "ipv4: {address: 127.0.0.1/8}", "cannot be the address of a bridge", ""),
        ("Network", "ipv4: {address: 'fd42::1/64'}", "expected an IPv4 address", ""),
        ("Network", "ipv6: {address: none, nat: true}", "ipv6.nat: contradicts address: none", ""),
        ("Network", "ipv4: {nat: true}\nconfig: {ipv4.nat: true}", "config.ipv4.nat: says the same as ipv4.nat", ""),
        ("Volume", "attachTo: [{target: Container/a, path: /}]", 'expected a folder below "/", got "/"', ""),
        (
            "Volume",
            "attachTo: [{target: Container/a, path: /a}, {target: Container/a, path: /b}]",
            "attachTo[1].target: Container/a has it already",
            "",
        ),
        ("Volume", "size: 1GiB\nconfig: {size: 1GiB}", "config.size: says the same as size", ""),
        ("Disk", "size: 1GiB\nattachTo: VirtualMachine/a\nmount: /a/../b", "mount:", "without"),
        ("StoragePool", "driver: dir\nsource: /a\nconfig: {source: /b}", "says the same as source", ""),
        ("Profile", "config: {volatile.a: b}", "config.volatile.a: is LXD's own memory", ""),
        ("Profile", "devices: {port-a: {type: none}}", "this name is not free", ""),
        ("PortForward", "listen: 0.0.0.0:99999\ntarget: Container/a\nport: 80", "expected a port from 1 to 65535", ""),
        ("PortForward", "listen: 999.0.0.0:80\ntarget: Container/a\nport: 80", "expected an address and port", ""),
    ],
)  # fmt: skip
def test_what_makes_no_sense(kind: str, spec: str, expected: str, hint: str) -> None:
    text = written(kind, spec)
    lines = said(text)
    assert len(lines) == 1, lines
    assert expected in lines[0]
    assert hint in (problems(text)[0].hint or "")


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Container", "image: a\nhost: far\nmemory: 900TiB\ncpus: 0-999"),
        ("Container", f"image: a\ncpus: 0-{CPUS - 1}"),
        ("Container", "image: a\npower: stopped\nready: {ip: true}"),
        ("Container", "image: a\nignore: [config.limits.cpu]"),
        ("Container", "image: a\ncloudInit: {userData: {version: 1.0}}"),
        ("Container", "image: a\ndevices: {a: {type: disk, path: /, pool: p}, b: {type: disk, path: /b, pool: p}}"),
        ("VirtualMachine", f"cpus: {CPUS + 1}\nmemory: 512MiB"),
        ("VirtualMachine", "memory: 33554432"),
    ],
)
def test_what_makes_sense(kind: str, spec: str) -> None:
    assert said(written(kind, spec)) == []


@pytest.mark.parametrize("spec", ["image: a\ncpus: 1.0", "image: a\nmemory: 1e9", "image: a\nready: {tcp: 80.0}"])
def test_a_float_is_no_integer(spec: str) -> None:
    assert "expected a whole number or a text" in said(written("Container", spec))[0]


def test_a_new_name_that_is_the_old_one() -> None:
    text = written("VirtualMachine", "", metadata="\n  renamedFrom: web")
    assert said(text) == ["5:16: metadata.renamedFrom: is the name that it has"]


def test_this_machine() -> None:
    machine = this_machine()
    assert machine.cpus == os.cpu_count()
    assert machine.memory > 64 << 20
