"""What reaches the host's own power needs leave, and each refusal says which line of which file would give it."""

# ruff: noqa: E501  a table reads best with one case a line
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from reconciler import manifest, policy, resolution, validation
from reconciler.manifest import Document
from reconciler.model import Desired
from reconciler.policy import Policy
from reconciler.problems import ManifestError, Problem
from tests.support.manifests import written

FILE = "/etc/reconciler/policy.yaml"
REMOTES = {"images": {"server": "https://images.example.org", "protocol": "simplestreams"}}
PINNED = "image: images:" + "a" * 64


POWERFUL = ["raw.lxc", "raw.apparmor", "raw.idmap", "raw.qemu", "raw.seccomp", "linux.kernel_modules", "something.new"]
POWERFUL += ["linux.sysctl.net.ipv4.ip_forward", "security.syscalls.intercept.mount", "security.syscalls.deny_default"]
POWERFUL += ["security.idmap.size", "security.idmap.base", "nvidia.runtime"]


def resolved(folder: Path, *texts: str) -> tuple[list[Desired], list[Document]]:
    documents = list(manifest.parse("---\n".join(texts), str(folder / "web.yaml")))
    assert validation.validate(documents) == []
    surroundings = resolution.Surroundings(manifest.read_payload, lambda path: "", REMOTES)
    return list(resolution.resolve(documents, surroundings).values()), documents


def refused(folder: Path, *texts: str, allowed: Policy | None = None) -> list[Problem]:
    desired, documents = resolved(folder, *texts)
    return policy.check(desired, allowed or Policy(FILE), documents)


def container(spec: str) -> str:
    return written("Container", f"{PINNED}\n{spec}")


@pytest.mark.parametrize(
    ("text", "expected", "leave"),
    [
        (container("privileged: true"), "7:15: privileged: root in it is root of the host", "containers: {privileged: [web]}"),
        (container("nesting: true"), "7:12: nesting: it sees more", "containers: {nesting: [web]}"),
        (container("config: {security.privileged: true}"), "7:33: config.security.privileged:", "containers: {privileged: [web]}"),
        (container("config: {security.privileged: '1'}"), "config.security.privileged:", "privileged"),
        (container("config: {security.nesting: true}"), "config.security.nesting:", "containers: {nesting: [web]}"),
        *(
            (container(f"config: {{{key}: x}}"), f"7:{14 + len(key)}: config.{key}: reaches beyond", f'containers: {{keys: ["{key}"]}}')
            for key in POWERFUL
        ),
        (container("devices: {a: {type: disk, source: /etc, path: /x}}"), "devices.a.source: the host's /etc", "shares: {roots: [/etc]}"),
        (container("devices: {a: {type: disk, source: /, path: /x}}"), "the host's /", "shares: {roots: [/]}"),
        (container("devices: {a: {type: disk, source: /dev/sda, path: /x}}"), "the host's /dev/sda", "devices: {unix: [/dev/sda]}"),
        (container("devices: {a: {type: disk, source: 'ceph:a/b', path: /x}}"), "reaches beyond", "disk.source.ceph:a/b"),
        (container("devices: {a: {type: disk, pool: p, source: v, path: /x, raw.mount.options: suid}}"), "raw.mount.options", "disk.raw.mount.options"),
        (container("devices: {a: {type: disk, pool: p, source: v, path: /x, shift: true}}"), "devices.a.shift", "disk.shift"),
        (container("devices: {a: {type: unix-char, path: /dev/kvm}}"), "the host's /dev/kvm", "devices: {unix: [/dev/kvm]}"),
        (container("devices: {a: {type: unix-char, source: /dev/mem, path: /dev/null}}"), "the host's /dev/mem", "[/dev/mem]"),
        (container("devices: {a: {type: unix-block, major: 8, minor: 0}}"), "the host's /dev/*", "devices: {unix: [/dev/*]}"),
        (container("devices: {a: {type: unix-hotplug, vendorid: '1234'}}"), "the USB device 1234:*", "usb: any"),
        (container("devices: {a: {type: usb}}"), "the USB device *:*", "devices: {usb: any}"),
        (container("devices: {a: {type: usb, vendorid: '1234', productid: '5678'}}"), "1234:5678", 'devices: {usb: ["1234:5678"]}'),
        (container("devices: {a: {type: gpu}}"), "the PCI device (any)", "devices: {pci: "),
        (container("devices: {a: {type: pci, address: '0000:01:00.0'}}"), "the PCI device 0000:01:00.0", '["0000:01:00.0"]'),
        (container("devices: {a: {type: nic, nictype: physical, parent: eth0}}"), "interface eth0", "networks: {interfaces: [eth0]}"),
        (container("devices: {a: {type: nic, nictype: bridged, parent: br0}}"), "devices.a.parent: the host's interface br0", "[br0]"),
        (container("devices: {a: {type: nic, nictype: routed}}"), "the host's interface *", "interfaces"),
        (container("devices: {a: {type: nic, network: x, ipv4.routes: 0.0.0.0/0}}"), "devices.a.ipv4.routes", "nic.ipv4.routes"),
        (container("devices: {a: {type: infiniband, parent: ib0}}"), "interface ib0", "[ib0]"),
        (container("devices: {a: {type: proxy, listen: 'tcp:0.0.0.0:80', connect: 'tcp:127.0.0.1:80'}}"), "listening on 0.0.0.0", 'listen: ["0.0.0.0"]'),
        (container("devices: {a: {type: proxy, listen: 'tcp:127.0.0.1:80', connect: 'tcp:127.0.0.1:80'}}"), "listening on 127.0.0.1", 'listen: ["127.0.0.1"]'),
        (container("devices: {a: {type: proxy, listen: 'tcp:[::]:80', connect: 'tcp:127.0.0.1:80'}}"), "listening on ::", 'listen: ["::"]'),
        (container("devices: {a: {type: proxy, listen: 'unix:/run/x', connect: 'tcp:127.0.0.1:80'}}"), "devices.a.listen", "proxy.listen"),
        (container("devices: {a: {type: proxy, bind: instance, listen: 'tcp:127.0.0.1:1', connect: 'unix:/var/lib/lxd/unix.socket'}}"), "devices.a.connect", "proxy.connect"),
        (written("Container", "image: images:debian/12"), '6:10: image: what the alias "debian/12" stands for can change', "images: {unpinned: true}"),
        (written("Image", "type: container\nsource: {server: 'https://a', alias: b}"), "source: what the alias", "full fingerprint"),
        (written("Image", "type: virtual-machine\nsource: {file: /etc/shadow}"), "7:18: source.file: the host's /etc/shadow", "shares: {roots: [/etc]}"),
        (written("Image", "type: virtual-machine\nsource: {build: {recipe: busybox, kernel: /etc/passwd}}"), "source.build.kernel", "shares"),
        *(
            (written("Image", f"type: {type_}\nsource: {{build: {{recipe: {recipe}, commands: [[id]]}}}}"),
             "source.build.commands: while the image is made they run as root", "images: {commands: true}")
            for type_, recipe in (("virtual-machine", "debian"), ("virtual-machine", "lxd-host"), ("container", "debian"))
        ),
        (written("Container", "image: {source: {build: {recipe: debian, commands: [[id]]}}}"), "source.build.commands:", "images: {commands: true}"),
        (written("VirtualMachine", "boot: {kernel: /etc/passwd}"), "6:18: boot.kernel: the host's /etc/passwd", "shares: {roots: [/etc]}"),
        (written("VirtualMachine", "disks: [{name: a, size: 1GiB}, {name: b, path: /dev/sda, format: raw}]"), "6:50: disks.b.path: the host's /dev/sda", "unix: [/dev/sda]"),
        (written("VirtualMachine", "disks: [{name: a, path: /var/lib/lxd/x.img, format: raw}]"), "disks.a.path", "roots: [/var/lib"),
        (written("VirtualMachine", "nics: [{name: a, type: bridge, bridge: br0}]"), "6:42: nics.a.bridge: the host's interface br0", "[br0]"),
        (written("Disk", "size: 1GiB\npath: /etc/x"), "7:9: path: the host's /etc/x", "shares: {roots: [/etc]}"),
        (written("Profile", "config: {security.privileged: true}"), "config.security.privileged", "containers: {privileged: [web]}"),
        (written("Profile", "devices: {a: {type: disk, source: /etc, path: /x}}"), "devices.a.source: the host's /etc", "shares"),
        (written("Network", "config: {raw.dnsmasq: dhcp-script=/x}"), "config.raw.dnsmasq: reaches beyond", "raw.dnsmasq"),
        (written("Network", "config: {bridge.external_interfaces: 'eth0, eth1'}"), "interface eth0", "[eth0]"),
        (written("Network", "config: {ipv4.routes: 0.0.0.0/0}"), "config.ipv4.routes", "ipv4.routes"),
        (written("Network", "config: {tunnel.a.interface: eth0}"), "config.tunnel.a.interface", "keys"),
        (written("StoragePool", "driver: dir\nsource: /etc"), "7:11: source: the host's /etc", "shares: {roots: [/etc]}"),
        (written("StoragePool", "driver: zfs\nsource: tank"), "the host's storage tank", "devices: {unix: [tank]}"),
        (written("StoragePool", "driver: lvm\nconfig: {source: /dev/sdb}"), "config.source: the host's /dev/sdb", "[/dev/sdb]"),
        (written("StoragePool", "driver: btrfs\nconfig: {source.wipe: true}"), "config.source.wipe", "keys"),
        (written("StoragePool", "driver: btrfs\nconfig: {btrfs.mount_options: x}"), "config.btrfs.mount_options", "keys"),
        (written("Project", "config: {restricted.containers.privilege: allow}"), "config.restricted.containers.privilege", "keys"),
        (written("Project", "config: {restricted: false}"), "config.restricted", "keys"),
        (written("Volume", "config: {security.unmapped: true}"), "config.security.unmapped", "keys"),
        (written("Volume", "config: {block.mount_options: x}"), "config.block.mount_options", "keys"),
        (written("Share", "source: /etc\nmounts: []"), "6:11: source: the host's /etc", "shares: {roots: [/etc]}"),
        (written("Share", "source: /home/other/x\nmounts: []"), "6:11: source: the host's /home/other/x", "shares: {roots: [/home/other]}"),
        *(
            (written("Share", f"source: {path}\nmounts: []"), f"the host's {path}", "shares")
            for path in ("/", "/proc", "/dev/shm", "/var/lib/lxd", "/usr/share", "/sys")
        ),
    ],
)  # fmt: skip
def test_what_needs_leave(tmp_path: Path, text: str, expected: str, leave: str) -> None:
    found = refused(tmp_path, text)
    lines = [f"{one.mark.line}:{one.mark.column}: {one.summary}" for one in found if one.mark]
    assert any(expected in line for line in lines), lines
    chosen = next(one for one, line in zip(found, lines, strict=True) if expected in line)
    assert chosen.summary.endswith(": not allowed")
    assert chosen.hint is not None
    assert f"to allow it, {FILE} has to say: " in chosen.hint
    assert leave in chosen.hint
    assert chosen.subject is not None


@pytest.mark.parametrize(
    "text",
    [
        container("privileged: false\nnesting: false"),
        container("config: {security.privileged: false, security.nesting: false, security.idmap.isolated: true}"),
        container("config: {limits.processes: 5, boot.autostart: true, user.a: b, environment.A: b}"),
        container("devices: {a: {type: disk, pool: p, path: /}, b: {type: nic, network: x}, c: {type: none}}"),
        container("devices: {a: {type: disk, source: 'cloud-init:config'}, b: {type: tpm, path: /dev/tpm0}}".replace(
            "'cloud-init:config'", "'cloud-init:config', path: /x")),
        written("VirtualMachine", "boot: {kernel: /boot/vmlinuz-6.1, initrd: /boot/initrd}\nnics: [{name: a}]"),
        written("VirtualMachine", "disks: [{name: a, path: ./a.img, format: raw}]"),
        written("Image", "type: virtual-machine\nsource: {file: ./a.img}"),
        written("Image", "type: container\nsource: {build: {recipe: debian, packages: [curl], commands: []}}"),
        written("Image", f"type: container\nsource: {{server: 'https://a', fingerprint: {'a' * 64}}}"),
        written("Network", "ipv4: {address: 10.0.0.1/24}\nconfig: {bridge.mtu: 1400, ipv4.dhcp.ranges: x}"),
        written("Profile", "config: {limits.cpu: 1}"),
        written("StoragePool", "driver: dir"),
        written("Project", "config: {features.images: false, restricted: true, restricted.devices.nic: block}"),
        written("Volume", "size: 1GiB"),
        written("Share", "source: ./site\nmounts: []"),
        written("PortForward", "listen: 127.0.0.1:80\ntarget: Container/web\nport: 80") + "---\n" + container(""),
    ],
)  # fmt: skip
def test_what_needs_none(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text) == []


def test_a_declared_network_is_a_bridge_for_vms(tmp_path: Path) -> None:
    vm = written("VirtualMachine", "nics: [{name: a, type: bridge, bridge: front}]")
    assert len(refused(tmp_path, vm)) == 1
    assert refused(tmp_path, vm, written("Network", "", "front")) == []


EVERYTHING = container(
    "privileged: true\nnesting: true\nconfig: {raw.lxc: x}\n"
    "devices: {a: {type: disk, source: /etc, path: /x}, b: {type: unix-char, path: /dev/kvm}, c: {type: usb},\n"
    "  d: {type: gpu, pci: '0000:01:00.0'}, e: {type: nic, nictype: macvlan, parent: eth0},\n"
    "  f: {type: proxy, listen: 'tcp:192.0.2.1:80', connect: 'tcp:127.0.0.1:80'}}"
)


def test_everything_at_once(tmp_path: Path) -> None:
    assert len(refused(tmp_path, EVERYTHING)) == 9


def test_the_policy_gives_leave(tmp_path: Path) -> None:
    allowed = Policy(
        FILE,
        roots=("/etc",),
        privileged=("we*",),
        nesting=("web",),
        keys=("raw.*",),
        unix=("/dev/k*",),
        pci=("0000:01:00.0",),
        usb=("any",),
        interfaces=("eth*",),
        listen=("192.0.2.1",),
    )
    assert refused(tmp_path, EVERYTHING, allowed=allowed) == []


def test_leave_for_one_is_not_leave_for_another(tmp_path: Path) -> None:
    assert len(refused(tmp_path, container("privileged: true"), allowed=Policy(FILE, privileged=("other",)))) == 1


def test_images(tmp_path: Path) -> None:
    text = written("Container", "image: images:debian/12")
    assert refused(tmp_path, text, allowed=Policy(FILE, unpinned=True)) == []
    (problem,) = refused(tmp_path, text, allowed=Policy(FILE, unpinned=True, servers=("https://other",)))
    assert "the image server https://images.example.org" in problem.summary
    servers = ("https://images.example.org/",)
    assert refused(tmp_path, text, allowed=Policy(FILE, unpinned=True, servers=servers)) == []


INSIDE = "host: far\nnesting: true\nconfig: {raw.lxc: x}\ndevices: {a: {type: disk, source: /etc, path: /x}}"


@pytest.mark.parametrize(
    "host",
    [
        written("VirtualMachine", "lxd: true", "far"),
        written("Host", "lxd: {virtualMachine: vm}", "far") + "---\n" + written("VirtualMachine", "lxd: true", "vm"),
    ],
)
def test_inside_a_vm_nesting_and_the_like_need_no_leave(tmp_path: Path, host: str) -> None:
    assert refused(tmp_path, host, container(INSIDE)) == []
    assert len(refused(tmp_path, host, written("Container", "host: far\nimage: images:a"))) == 1


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Container", f"{PINNED}\nhost: far\nprivileged: true"),
        ("Container", f"{PINNED}\nhost: far\nconfig: {{security.privileged: 'true'}}"),
        ("Profile", "host: far\nconfig: {security.privileged: 'yes', raw.lxc: x}"),
    ],
)
def test_inside_a_vm_too_nothing_is_privileged_without_leave(tmp_path: Path, kind: str, spec: str) -> None:
    given = (written("VirtualMachine", "lxd: true", "far"), written(kind, spec, "builder"))
    (problem,) = refused(tmp_path, *given)
    assert "root in it is root of the VM" in problem.summary
    assert "containers: {privileged: [builder]}" in str(problem.hint)
    assert refused(tmp_path, *given, allowed=Policy(FILE, privileged=("builder",))) == []


def test_what_is_led_into_a_vm_is_asked_about_where_it_begins(tmp_path: Path) -> None:
    texts = (
        written("VirtualMachine", "lxd: true\nnics: [{name: net}]", "far"),
        written("Container", f"{PINNED}\nhost: far", "inner"),
        written("Share", "source: /etc\nmounts: [{target: Container/inner, path: /x}]", "s"),
        written("Device", "match: {usb: {vendor: '046d', product: c52b}}\nattachTo: Container/inner", "d"),
        written("PortForward", "listen: '0.0.0.0:80'\ntarget: Container/inner\nport: 80", "p"),
    )
    assert {one.subject for one in refused(tmp_path, *texts)} == {"Share/s", "Device/d", "PortForward/p"}


def _desired(*texts: str) -> list[Any]:
    documents = [one for text in texts for one in manifest.parse(text)]
    surroundings = resolution.Surroundings(manifest.read_payload, lambda path: "", REMOTES)
    return list(resolution.resolve(documents, surroundings).values())


def test_a_host_is_not_inside_only_because_a_vm_has_its_name() -> None:
    socket = written("Host", "lxd: {socket: auto}", "far")
    vm = written("VirtualMachine", "lxd: true", "far")
    assert len(policy.check(_desired(socket, container(INSIDE)), Policy(FILE))) == 3
    assert len(policy.check(_desired(socket, vm, container(INSIDE)), Policy(FILE))) == 3
    local = written("VirtualMachine", "lxd: true", "local")
    assert len(policy.check(_desired(local, container(INSIDE.replace("far", "local"))), Policy(FILE))) == 3


def test_commands_of_a_recipe_run_on_this_host_wherever_the_image_goes(tmp_path: Path) -> None:
    image = written("Image", "type: container\nsource: {build: {recipe: debian, commands: [[id]]}}", "inner")
    texts = (written("VirtualMachine", "lxd: true", "far"), image, written("Container", "host: far\nimage: inner"))
    (problem,) = refused(tmp_path, *texts)
    assert problem.subject == "Image/inner@far"
    assert refused(tmp_path, *texts, allowed=Policy(FILE, commands=True)) == []


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    text = written("VirtualMachine", "disks: [{name: a, path: ./link/shadow, format: raw}]")
    (problem,) = refused(tmp_path, text)
    assert "(that is /etc/shadow)" in problem.summary
    (tmp_path / "node").symlink_to("/dev/sda")
    (problem,) = refused(tmp_path, written("Disk", "size: 1GiB\npath: ./node"))
    assert "/dev/sda" in str(problem)


def test_our_own_state_is_nobodys_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "state"))
    assert len(refused(tmp_path, written("Disk", "size: 1GiB\npath: ./state/x"))) == 1
    assert refused(tmp_path, written("Disk", "size: 1GiB\npath: ./disks/x")) == []


@pytest.mark.parametrize("folder", [".", "./state", "./state/vms"])
def test_our_own_state_is_shared_with_nobody(tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "state"))
    text = written("Share", f"source: {folder}\nmounts: []")
    (problem,) = refused(tmp_path, text, allowed=Policy(FILE, roots=(str(tmp_path.parent),)))
    assert "where our own state is: not allowed" in problem.summary
    named = Policy(FILE, roots=(str((tmp_path / folder).resolve()),))
    assert refused(tmp_path, text, allowed=named) == []


def test_a_folder_beside_our_own_state_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "state"))
    assert refused(tmp_path, written("Share", "source: ./site\nmounts: []")) == []


def test_a_share_a_device_and_a_port_are_asked_about_once(tmp_path: Path) -> None:
    texts = (
        written("Share", "source: /etc\nmounts: [{target: Container/web, path: /a}]", "s"),
        written("Device", "match: {unix: /dev/kvm}\nattachTo: Container/web", "d"),
        written("PortForward", "listen: 192.0.2.1:80\ntarget: Container/web\nport: 80", "p"),
    )
    found = refused(tmp_path, container(""), *texts)
    assert sorted(str(one.subject) for one in found) == ["Device/d", "PortForward/p", "Share/s"]


def test_whether_the_answer_hangs_on_the_hosts_files(tmp_path: Path) -> None:
    allowed = Policy(FILE, roots=("/etc",), unix=("/dev/kvm",))
    for text, looks in (
        (container("config: {raw.lxc: x}"), False),
        (container("devices: {a: {type: disk, source: /etc, path: /x}}"), True),
        (container("devices: {a: {type: unix-char, path: /dev/kvm}}"), True),
        (written("VirtualMachine", "boot: {kernel: ./vmlinuz}"), True),
        (written("VirtualMachine", "nics: [{name: a, type: bridge, bridge: b}]"), False),
    ):
        desired, _documents = resolved(tmp_path, text)
        assert policy.looks_at_host(desired, allowed) is looks


def test_without_documents_problems_point_at_the_resource(tmp_path: Path) -> None:
    desired, _documents = resolved(tmp_path, container("privileged: true"))
    (problem,) = policy.check(desired, Policy(FILE))
    assert str(problem.mark) == f"{tmp_path}/web.yaml:1:1"


WHOLE = """
shares: {roots: [/srv]}
containers: {privileged: [a], nesting: [b], keys: [raw.lxc]}
devices: {unix: [/dev/kvm], pci: ['0000:00:02.0'], usb: any}
networks: {interfaces: [br0]}
images: {unpinned: true, servers: ['https://a'], commands: true}
listen: ['192.0.2.1']
"""


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    assert policy.load(file=str(path)) == Policy(str(path))
    path.write_text(WHOLE)
    found = policy.load(file=str(path))
    assert found == Policy(
        str(path), ("/srv",), ("a",), ("b",), ("raw.lxc",), ("/dev/kvm",), ("0000:00:02.0",), ("any",), ("br0",), True,
        ("https://a",), ("192.0.2.1",), True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("containers: {priviledged: [a]}", '1:14: containers: unknown field "priviledged"'),
        ("containers: {privileged: a}", "1:26: containers.privileged: expected a list"),
        ("images: {unpinned: yes}", '1:20: images.unpinned: expected true or false, got "yes"'),
        ("devices: {usb: all}", '1:16: devices.usb: expected "any" or a list of vendor:product'),
        ("shares: {roots: [srv]}", "1:18: shares.roots[0]: expected an absolute path"),
        ("a: [", "not YAML"),
        ("", "holds no document"),
        ("listen: []\n---\nlisten: []\n", "expected one document"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    with pytest.raises(ManifestError) as caught:
        policy.load(file=str(path))
    assert expected in str(caught.value.problems[0])
    assert caught.value.problems[0].mark is not None


def test_a_file_that_others_can_write(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("listen: []\n")
    path.chmod(0o666)
    with pytest.raises(ManifestError, match="can be written by others"):
        policy.load(file=str(path))
    path.unlink()
    (tmp_path / "real.yaml").write_text("listen: []\n")
    path.symlink_to("real.yaml")
    with pytest.raises(ManifestError, match="symbolic link"):
        policy.load(file=str(path))


def test_a_file_among_the_manifests(tmp_path: Path) -> None:
    inner = tmp_path / "manifests" / "sub"
    inner.mkdir(parents=True)
    path = inner / "policy.yaml"
    path.write_text("listen: []\n")
    documents = manifest.parse("a: 1\n", str(tmp_path / "manifests" / "web.yaml"))
    with pytest.raises(ManifestError, match="lies among the manifests"):
        policy.load(documents, str(path))
    with pytest.raises(ManifestError, match="lies among the manifests"):
        policy.load([one.file for one in documents], str(path))
    hidden = tmp_path / ".config" / "policy.yaml"
    hidden.parent.mkdir()
    hidden.write_text("listen: []\n")
    assert policy.load(manifest.parse("a: 1\n", str(tmp_path / "web.yaml")), str(hidden)) == Policy(str(hidden))


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert policy.path() == "/etc/reconciler/policy.yaml"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/a/conf")
    assert policy.path() == "/home/a/conf/reconciler/policy.yaml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/a")
    assert policy.path() == "/home/a/.config/reconciler/policy.yaml"
