"""What the schemas refuse, in words that help: the place, what was expected, what was found, and a hint."""

from __future__ import annotations

import pytest

from reconciler import validation
from reconciler.problems import ManifestError
from tests.support.manifests import documents, problems, said, written

NAME = 'a name of 1 to 63 of a-z, 0-9 and "-", '
ENDS = "with a letter or digit at both ends"
LETTER = 'beginning with a letter and not ending with "-"'


@pytest.mark.parametrize(
    ("kind", "spec", "expected", "hint"),
    [
        ("Container", "image: a\nmemroy: 1GiB", '7:3: unknown field "memroy"', 'did you mean "memory"?'),
        ("Container", "image: a\nMemory: 1GiB", '7:3: unknown field "Memory"', 'did you mean "memory"?'),
        ("Container", "image: a\nzzz: 1", '7:3: unknown field "zzz"', "fields here are: host, image, power"),
        ("Container", "image: a\nready: {port: 1}", '7:11: ready: unknown field "port"', "ip, tcp, log"),
        ("Container", "power: running", '5:1: missing "image"', "the name of an Image"),
        ("Container", "image: a\nmemory: two gigs", '7:11: memory: expected a size such as "2GiB"', None),
        ("Container", "image: a\nmemory: 128mb", '"128mb"', 'did you mean "128MiB"?'),
        ("Container", "image: a\nmemory: 2 GB", '"2 GB"', 'did you mean "2GiB"?'),
        ("Container", "image: a\nmemory: 2Gi", '"2Gi"', 'did you mean "2GiB"?'),
        ("Container", "image: a\nmemory: 1e9GiB", '"1e9GiB"', None),
        ("Container", "image: a\nmemory: -1", "7:11: memory: expected a size", None),
        ("Container", "image: a\nmemory: 0", "got 0", None),
        ("Container", "image: a\nmemory: 0GiB", 'got "0GiB"', None),
        ("Container", "image: a\nmemory: '99999999999999999999'", "memory: expected a size", None),
        ("Container", "image: a\nmemory: [1]", "got a list", None),
        ("Container", "image: a\nmemory: {max: 1GiB}", '7:3: memory: missing "size"', "a size such as"),
        ("Container", "image: a\ncpus: 0", "7:9: cpus: expected a number of CPUs of at least 1", None),
        ("Container", "image: a\ncpus: -1", "got -1", None),
        ("Container", "image: a\ncpus: two", 'got "two"', None),
        ("Container", "image: a\ncpus: true", "got true", None),
        ("Container", "image: a\npower: runing", '7:10: power: expected one of running, stopped', 'mean "running"?'),
        ("Container", "image: a\npower: Running", 'got "Running"', 'did you mean "running"?'),
        ("Container", "image: a\npower: on", 'got "on"', None),
        ("Container", "image: a\npower: true", "expected one of running, stopped, paused, got true", None),
        ("Container", "image: a\nnesting: yes", '7:12: nesting: expected true or false, got "yes"', "write true"),
        ("Container", "image: a\nnesting: 'true'", 'got "true"', "take the quotes away"),
        ("Container", "image: a\nnesting: 1", "expected true or false, got 1", None),
        ("Container", "image: a\nprofiles: default", '7:13: profiles: expected a list, got "default"', "[default]"),
        ("Container", "image: a\nprofiles: {a: b}", "expected a list, got a mapping", "as a list"),
        ("Container", "image: a\nprofiles: [a, b, a]", '7:20: profiles[2]: "a" stands twice', "keep one"),
        ("Container", "image: null", "6:10: image: expected the name of an Image", "give it a value"),
        ("Container", "image:\npower: running", "got nothing (null)", "give it a value"),
        ("Container", "image: ../a", 'got "../a"', None),
        ("Container", "image: a:b:c d", 'got "a:b:c d"', None),
        ("Container", "image: {}", '6:3: image: missing "source"', None),
        ("Container", "image: a\nready: {}", "7:3: ready: expected at least one of its fields, got none", None),
        ("Container", "image: a\nready: {tcp: 0}", "7:16: ready.tcp: expected a port from 1 to 65535, got 0", None),
        ("Container", "image: a\nready: {tcp: 65536}", "got 65536", None),
        ("Container", "image: a\nready: {tcp: '80'}", 'got "80"', "quotes away"),
        ("Container", "image: a\nready: {ip: true, timeout: 5}", "ready.timeout: expected a duration", '"5s"?'),
        ("Container", "image: a\nready: {ip: true, timeout: '5'}", 'got "5"', '"5s"?'),
        ("Container", "image: a\nready: {ip: true, timeout: 5min}", 'got "5min"', 'did you mean "5m"?'),
        ("Container", "image: a\nready: {command: ls -l}", 'expected a list such as ["sh"', "[ls -l]"),
        ("Container", "image: a\nrun: [{command: []}]", "expected at least one of its entries, got none", None),
        ("Container", "image: a\nrun: [{when: start}]", '7:9: run[0]: missing "command"', 'a list such as ["sh"'),
        ("Container", "image: a\nfiles: [{path: a, content: b}]", 'files[0].path: expected an absolute path', None),
        ("Container", "image: a\nfiles: [{path: /a}]", "files[0]: expected exactly one of content or source", None),
        ("Container", "image: a\nfiles: [{path: /a, content: b, source: c}]", "got content and source", None),
        ("Container", "image: a\nfiles: [{path: /a, content: b, mode: 644}]", "got 644", 'write "0644"'),
        ("Container", "image: a\nfiles: [{path: /a, content: b, mode: '9'}]", 'mode: expected an octal mode', None),
        ("Container", "image: a\nfiles: [{path: /a, content: b, owner: root}]", 'user:group such as "0:0"', None),
        ("Container", "image: a\nfiles: [{path: /a, content: 5}]", "expected a text, got 5", 'in quotes: "5"'),
        ("Container", "image: a\nconfig: {a b: 1}", '7:12: config: "a b" is not an LXD configuration key', None),
        ("Container", "image: a\nconfig: {a=b: 1}", 'config: "a=b" is not', None),
        ("Container", "image: a\nconfig: {limits.cpu: 1.5}", "got 1.5", 'put it in quotes: "1.5"'),
        ("Container", "image: a\nconfig: {limits.cpu: null}", "got nothing (null)", "give it a value"),
        ("Container", "image: a\nconfig: [a]", "expected a mapping, got a list", None),
        ("Container", "image: a\ndevices: {eth0: {type: nik}}", "devices.eth0.type: expected one of", 'mean "nic"?'),
        ("Container", "image: a\ndevices: {eth0: {network: x}}", '7:13: devices.eth0: missing "type"', None),
        ("Container", "image: a\ndevices: {a/b: {type: nic}}", '7:13: devices: "a/b" is not a device name', None),
        ("Container", "image: a\ndevices: {eth0: nic}", "expected a mapping such as {type: nic", None),
        ("Container", "image: a\nuser: {name: 'a:b'}", "7:16: user.name: expected a user name", 'mean "a-b"?'),
        ("Container", "image: a\nuser: {name: \"a\\n\"}", "user.name: expected a user name", 'mean "a"?'),
        ("Container", "image: a\nuser: {name: '-x'}", "user.name: expected a user name", 'mean "x"?'),
        ("Container", "image: a\nuser: {name: a, uid: 0}", "user.uid: expected", None),
        ("Container", "image: a\nuser: {name: a, groups: ['a,b']}", "groups[0]: expected a group name", 'mean "a-b"?'),
        ("Container", "image: a\nuser: {name: a, shell: 'sh; id'}", "user.shell: expected a path", None),
        ("Container", "image: a\nuser: {name: a, home: '/a:b'}", "user.home: expected a path", None),
        ("Container", "image: a\nuser: {name: a, sshKeys: ['AAAAAAAAAAAAAAAAAAAAA']}", "sshKeys[0]: expected a", None),
        ("Container", "image: a\nuser: {name: a, sshKeys: [\"ssh-rsa AAAAAAAAAA a\\nssh-rsa B\"]}", "public key", None),
        ("Container", "image: a\nuser: {name: a, sshKeys: ['command=\"x\" ssh-rsa AAAAAAAA']}", "a public key", None),
        ("Container", "image: a\ntimezone: ../../etc/shadow", "timezone: expected a time zone such as", None),
        ("Container", "image: a\nlocale: \"C\\nLD_PRELOAD=x\"", "locale: expected a locale such as", None),
        ("Container", "image: a\nlabels: {a: b}", 'unknown field "labels"', "fields here are"),
        ("Container", "image: a\ndeletionPolicy: keep", "expected one of delete, retain", None),
        ("Container", "image: a\nimagePolicy: Follow", "expected one of create, follow", 'mean "follow"?'),
        ("Container", "image: a\nhost: far/away", f"7:9: host: expected {NAME}{ENDS}", 'mean "far-away"?'),
        ("VirtualMachine", "cpus: 1000", "6:9: cpus: expected a number of CPUs from 1 to 288", None),
        ("VirtualMachine", "cpus: 0-3", 'got "0-3"', None),
        ("VirtualMachine", "machine: q35,accel=x", '6:12: machine: expected a QEMU machine such as "q35"', None),
        ("VirtualMachine", "cpuModel: host,+x", "expected a QEMU CPU model", None),
        ("VirtualMachine", "disks: [{name: a}]", "6:11: disks[0]: expected one of image, size or path", None),
        ("VirtualMachine", "disks: [{size: 1GiB}]", 'disks[0]: missing "name"', None),
        ("VirtualMachine", "disks: [{name: a, path: b}]", 'disks[0]: missing "format"', None),
        (
            "VirtualMachine",
            "disks: [{name: a, path: b, format: raw, size: 1GiB}]",
            "disks[0]: a disk by path is used as it is: neither image nor size stands beside it",
            None,
        ),
        ("VirtualMachine", "nics: [{name: a, type: bridge}]", 'nics[0]: missing "bridge"', "the name of a bridge"),
        ("VirtualMachine", "nics: [{name: a, bridge: b}]", "only a NIC of type bridge has a bridge", None),
        ("VirtualMachine", "nics: [{name: a, mac: 52-54-00-44-49-56}]", "expected a MAC address such as", None),
        ("VirtualMachine", "nics: [{name: a, model: 'e1000,id=x'}]", "expected a QEMU network card", None),
        ("VirtualMachine", "boot: {}", "boot: expected exactly one of image or kernel, got none of them", None),
        ("VirtualMachine", "boot: {image: a, kernel: b}", "got image and kernel", None),
        ("VirtualMachine", "boot: {image: a, initrd: b}", "boot.initrd: needs kernel beside it", None),
        ("VirtualMachine", "boot: {kernel: a, commandLine: \"a\\nb\"}", "expected one line of text", None),
        ("VirtualMachine", "ready: {quorum: true}", 'ready: unknown field "quorum"', "guestAgent, ip, command"),
        ("Image", "type: container", '5:1: missing "source"', "exactly one of file, url, server, build"),
        ("Image", "type: vm\nsource: {file: a}", "expected one of container, virtual-machine", None),
        ("Image", "type: container\nsource: {}", "source: expected exactly one of file, url, server or build", None),
        ("Image", "type: container\nsource: {file: a, build: {recipe: busybox}}", "got file and build", None),
        ("Image", "type: virtual-machine\nsource: {url: 'https://a/b'}", "source.url: needs sha256 beside it", None),
        ("Image", "type: container\nsource: {server: 'https://a'}", "expected one of alias or fingerprint", None),
        ("Image", "type: container\nsource: {file: a, alias: b}", "source.alias: needs server beside it", None),
        (
            "Image",
            f"type: container\nsource: {{server: 'https://a', alias: b, sha256: {'a' * 64}}}",
            "an image of a server or a build has no format and no sha256 of its own",
            None,
        ),
        (
            "Image",
            f"type: container\nsource: {{url: 'https://a/m', sha256: {'a' * 64}, rootfsUrl: 'https://a/r'}}",
            "source.rootfsUrl: needs rootfsSha256 beside it",
            None,
        ),
        ("Image", f"type: container\nsource: {{file: a, rootfsUrl: 'https://a', rootfsSha256: {'a' * 64}}}", "", None),
        ("Image", f"type: container\nsource: {{file: a, rootfsSha256: {'a' * 64}}}", "expected one of rootfs", None),
        ("Image", "type: container\nsource: {file: a, sha256: abc}", "a SHA-256 of 64 lower-case hex", None),
        ("Image", f"type: container\nsource: {{file: a, sha256: {'A' * 64}}}", "got", "write it in lower case"),
        ("Image", f"type: container\nsource: {{file: a, sha256: {'a' * 63}}}", "got", None),
        ("Image", "type: container\nsource: {file: \"a\\nb\"}", "source.file: expected a path", None),
        ("Image", "type: container\nsource: {build: {recipe: busybx}}", "expected one of busybox", 'mean "busybox"?'),
        ("Image", "type: container\nsource: {build: {recipe: busybox, modules: a}}", "needs kernel beside it", None),
        ("Image", "type: virtual-machine\nsource: {url: 'ftp://a/b', sha256: a}", "expected a URL such as", None),
        ("Host", "lxd: {}", "6:3: lxd: expected exactly one of socket, url or virtualMachine, got none", None),
        ("Host", "lxd: {socket: auto, virtualMachine: a}", "got socket and virtualMachine", None),
        ("Host", "lxd: {socket: lxd.sock}", '6:17: lxd.socket: expected "auto" or an absolute path', None),
        ("Host", "lxd: {url: 'http://a:8443'}", "lxd.url: expected an https URL", None),
        ("Host", "lxd: {url: 'https://a:8443'}", "needs serverCertificate, clientCertificate and clientKey", None),
        ("Host", "lxd: {socket: auto, target: a}", "lxd.target: needs url beside it", None),
        ("Network", "type: ovn", '6:9: type: expected "bridge", got "ovn"', None),
        ("Network", "ipv4: {address: 10.0.0.1}", "ipv4.address: expected", None),
        ("Network", "dns: {domain: 'a b'}", "dns.domain: expected a domain", None),
        ("StoragePool", "driver: zsf", "expected one of dir", 'did you mean "zfs"?'),
        ("Disk", "format: raw", '5:1: missing "size"', "a size such as"),
        ("Disk", "size: 1GiB\nmount: /data", "mount: needs attachTo beside it", None),
        ("Disk", "size: 1GiB\nattachTo: Share/a", "attachTo: expected VirtualMachine/name or Container/name", None),
        ("Volume", "attachTo: [{target: VirtualMachine/a, path: /x}]", "target: expected Container/name", None),
        ("Share", "source: /srv\nmounts: [{target: web, path: /x}]", "VirtualMachine/name or Container/name", None),
        ("Device", "attachTo: Container/a", "5:1: expected exactly one of match or emulate, got none", None),
        ("Device", "attachTo: Container/a\nmatch: {usb: {vendor: '1'}}", "four lower-case hexadecimal", None),
        ("Device", "attachTo: Container/a\nmatch: {usb: {bus: 1}}", "vendor with product or bus with port", None),
        ("PortForward", "listen: web\ntarget: Container/a\nport: 80", "expected an address and port such as", None),
        ("Environment", "resource: [a]", 'unknown field "resource"', 'did you mean "resources"?'),
        ("Environment", "prune: 'yes'", 'expected true or false, got "yes"', "write true"),
    ],
)  # fmt: skip
def test_what_the_schema_refuses(kind: str, spec: str, expected: str, hint: str | None) -> None:
    found = problems(written(kind, spec))
    matching = [one for one, line in zip(found, said(written(kind, spec)), strict=True) if expected in line]
    assert len(matching) == 1, [str(one) for one in found]
    assert matching[0].subject == f"{kind}/web"
    assert (hint or "") in (matching[0].hint or "")
    if hint is None:
        assert "did you mean" not in (matching[0].hint or "")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ('""', None),
        ("a" * 64, f'did you mean "{"a" * 63}"?'),
        ("../x", 'did you mean "x"?'),
        ("/x", 'did you mean "x"?'),
        ("a/b", 'did you mean "a-b"?'),
        (".", None),
        ("..", None),
        ("'a b'", 'did you mean "a-b"?'),
        ('"a\\n"', 'did you mean "a"?'),
        ('"a\\"b"', 'did you mean "a-b"?'),
        ("$(id)", 'did you mean "id"?'),
        ("a;b", 'did you mean "a-b"?'),
        ("-a", 'did you mean "a"?'),
        ("a-", 'did you mean "a"?'),
        ("--help", 'did you mean "help"?'),
        ("'x,file=/etc/shadow'", 'did you mean "x-file-etc-shadow"?'),
        ("a=b", 'did you mean "a-b"?'),
        ("Web", 'did you mean "web"?'),
        ("a_b", 'did you mean "a-b"?'),
        ("wеb", "U+0435 (е) only looks like a plain letter"),
        ("web\u200b", "U+200B is not allowed"),
        ("５", None),
    ],
)
@pytest.mark.parametrize("kind", ["VirtualMachine", "Container"])
def test_names(kind: str, name: str, hint: str | None) -> None:
    found = problems(written(kind, "image: a" if kind == "Container" else "", name))
    assert len(found) == 1
    assert str(found[0].mark) == "web.yaml:4:9"
    assert found[0].summary.startswith(f"metadata.name: expected {NAME}{ENDS if kind == 'VirtualMachine' else LETTER}")
    assert (hint or "") in (found[0].hint or "")


@pytest.mark.parametrize(("kind", "name"), [("VirtualMachine", "0day"), ("Container", "a"), ("Container", "a" * 63)])
def test_names_that_are_fine(kind: str, name: str) -> None:
    assert problems(written(kind, "image: a" if kind == "Container" else "", name)) == []


def test_a_containers_name_begins_with_a_letter() -> None:
    assert LETTER in said(written("Container", "image: a", "0day"))[0]


@pytest.mark.parametrize("name", ["a", "sixteen-letters-", "front-network-16"])
def test_a_networks_name_fits_an_interface(name: str) -> None:
    assert "a name of 2 to 15" in said(written("Network", "", name))[0]


@pytest.mark.parametrize(("field", "home"), [("image: a", "spec"), ("labels: {a: b}", "metadata")])
def test_a_field_that_stands_too_far_out_is_told_where_it_belongs(field: str, home: str) -> None:
    found = problems(
        f"apiVersion: reconciler/v1\nkind: Container\nmetadata: {{name: web}}\n{field}\nspec: {{image: b}}\n"
    )
    assert [one.hint for one in found] == [f"it belongs into {home}: indent it below that"]


def test_numbers_as_names_are_texts_in_quotes() -> None:
    found = problems(written("VirtualMachine", "", "22"))
    assert found[0].hint == 'put it in quotes: "22"'
    assert problems(written("VirtualMachine", "", "'22'")) == []


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("image: a\ncpus: 1.5", "reconciler explain Container.cpus"),
        ("image: a\nhost: 7", 'put it in quotes: "7"'),
        ("image: a\nconfig: {limits.cpu: 1.5}", 'put it in quotes: "1.5"'),
    ],
)
def test_quotes_are_advised_where_they_would_help(spec: str, hint: str) -> None:
    assert problems(written("Container", spec))[0].hint == hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n", ['1:1: missing "kind"', '1:1: apiVersion: expected "reconciler/v1", got none']),
        ("kind: Pod\napiVersion: reconciler/v1\n", ['1:7: kind: there is no kind "Pod"']),
        ("kind: container\napiVersion: reconciler/v1\n", ['1:7: kind: there is no kind "container"']),
        ("kind: [a]\napiVersion: reconciler/v1\n", ['1:1: kind: expected a kind such as "Container", got a list']),
        (
            "kind: null\napiVersion: reconciler/v1\n",
            ['1:7: kind: expected a kind such as "Container", got nothing (null)'],
        ),
        ("kind: Policy\napiVersion: v1\n", ['1:7: kind: there is no kind "Policy"', "2:13: apiVersion: expected"]),
        (
            "apiVersion: v1\nkind: Profile\nmetadata: {name: a}\nspec: {}\n",
            ['1:13: apiVersion: expected "reconciler/v1", got "v1"'],
        ),
        ("kind: Profile\nmetadata: {name: a}\nspec: {}\n", ['1:1: missing "apiVersion"']),
        ("apiVersion: reconciler/v1\nkind: Profile\n", ['1:1: missing "metadata"']),
        ("apiVersion: reconciler/v1\nkind: Profile\nmetadata: a\n", ['3:11: metadata: expected a mapping, got "a"']),
        ("apiVersion: reconciler/v1\nkind: Profile\nmetadata: {}\n", ['3:1: metadata: missing "name"']),
        ("apiVersion: reconciler/v1\nkind: Profile\nmetadata: {name: [a]}\n", ["3:12: metadata.name: expected a name"]),
        (
            "apiVersion: reconciler/v1\nkind: Profile\nmetadata: {name: a}\nspec: []\n",
            ["4:1: spec: expected a mapping"],
        ),
        ("apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: a}\n", ['1:1: missing "spec"']),
        (
            "apiVersion: reconciler/v1\nkind: Profile\nmetadata: {name: a, nmae: b, labels: [x]}\nstatus: {}\n",
            ['3:21: metadata: unknown field "nmae"', "3:30: metadata.labels: expected", '4:1: unknown field "status"'],
        ),
        (
            "apiVersion: reconciler/v1\nkind: Profile\nmetadata: {name: a, labels: {a: 1, ' b': x}}\n",
            ["3:33: metadata.labels.a: expected a text, got 1", '3:36: metadata.labels: " b" is not a label name'],
        ),
    ],
)
def test_the_head_of_a_manifest(text: str, expected: list[str]) -> None:
    found = sorted(said(text))
    assert len(found) >= len(expected)
    for line in expected:
        assert any(one.startswith(line) for one in found), found


def test_all_problems_at_once_in_the_order_of_the_text() -> None:
    spec = "image: a\npower: onn\nmemory: 0\ncpus: 0-99\nephemral: true\nfiles: [{path: /a/../b, content: x}]"
    lines = [int(one.split(":")[0]) for one in said(written("Container", spec))]
    assert lines == [7, 8, 9, 10, 11]


def test_check_raises_all_of_them() -> None:
    with pytest.raises(ManifestError) as caught:
        validation.check(documents(written("Container", "power: on"), written("Pod")))
    assert {one.mark.file for one in caught.value.problems if one.mark} == {"0.yaml", "1.yaml"}


def test_nobody_reads_more_than_a_hundred_problems_of_one_document() -> None:
    spec = "\n".join(f"x{number}: 1" for number in range(500))
    assert len(problems(written("Profile", spec))) == 100


def test_every_example_of_the_manual_is_right() -> None:
    texts = [
        written("Container", "image: images:debian/12\ncpus: {count: 1, max: 2}\nmemory: {size: 512M, max: 1GiB}"),
        written("Container", "image: {source: {build: {recipe: busybox}}}\nupdatePolicy: live", "inline"),
        written("VirtualMachine", "disks: [{name: a, size: 1GiB}]\nnics: [{name: a}]\nlxd: true", "vm"),
        written("VirtualMachine", "boot: {kernel: /boot/vmlinuz, initrd: i, commandLine: console=ttyS0}", "kernel"),
        written("Host", "lxd: {socket: auto, project: lab}", "near"),
        written("Volume", "size: 1GiB\nattachTo: [{target: Container/web, path: /srv}]", "data"),
        written("Share", "source: ./x\nmounts: [{target: VirtualMachine/vm, path: /x}]", "share"),
        written("Device", "emulate: {driver: usb-tablet, bus: x.0}\nattachTo: VirtualMachine/vm", "tablet"),
        written("PortForward", "listen: '[::1]:8080'\ntarget: Container/web\nport: 80\nprotocol: udp", "port"),
        written("Environment", "resources: [.]\napprove: {restart: true}", "env"),
        written("Container", "image: a\nfiles: [{path: /a, source: ./a, mode: 0755, owner: 0:0}]", "files"),
    ]
    assert validation.validate(documents(*texts)) == []
