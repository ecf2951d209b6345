"""resolution/attachments: what a Share, Device or PortForward adds to its guests, and where that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import manifest
from reconciler.model import MOST_PLUGGED, QEMU, Desired, ResourceId
from reconciler.problems import ManifestError, Problem
from reconciler.resolution import Surroundings, resolve

HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n"
VM = ("VirtualMachine", "vm", "{boot: {kernel: /k}, nics: [{name: eth0}]}")
WEB = ("Container", "web", "{image: 'images:alpine'}")
BOTH = "[{target: VirtualMachine/vm, path: /srv}, {target: Container/web, path: /www}]"
REMOTES = {"images": {"server": "https://images.example", "protocol": "simplestreams"}}
NODES = {"/dev/ttyUSB0": "char", "/dev/loop7": "block"}


def resolved(*manifests: tuple[str, str, str]) -> dict[ResourceId, Desired]:
    documents = manifest.parse("---\n".join(HEAD.format(*one) for one in manifests), "/m/all.yaml")
    return resolve(documents, Surroundings(lambda _path, _base: b"", lambda _path: "1", REMOTES, NODES.get))


def in_vm(*manifests: tuple[str, str, str]) -> Any:
    return resolved(VM, *manifests)[ResourceId("VirtualMachine", "vm")].spec


def in_container(*manifests: tuple[str, str, str]) -> Any:
    return resolved(WEB, *manifests)[ResourceId("Container", "web")].spec.get("devices")


def refused(*manifests: tuple[str, str, str]) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        resolved(VM, WEB, *manifests)
    return list(caught.value.problems)


def test_a_share_is_part_of_every_guest_that_mounts_it() -> None:
    found = resolved(VM, WEB, ("Share", "site", f"{{source: site, mounts: {BOTH}}}"))
    machine, web = (found[ResourceId.parse(one)].spec for one in ("VirtualMachine/vm", "Container/web"))
    assert machine["shares"] == {"site": {"source": "/m/site", "readOnly": True, "path": "/srv"}}
    disk = {"type": "disk", "source": "/m/site", "path": "/www", "readonly": "true"}
    assert web["devices"] == {"share-site": disk}


def test_the_kinds_themselves_remain_and_need_their_guests() -> None:
    found = resolved(VM, WEB, ("Share", "site", f"{{source: site, readOnly: false, mounts: {BOTH}}}"))
    share = found[ResourceId("Share", "site")]
    assert share.spec["source"] == "/m/site" and share.spec["readOnly"] is False
    assert share.needs == (ResourceId("Container", "web"), ResourceId("VirtualMachine", "vm"))
    assert not found[ResourceId("VirtualMachine", "vm")].needs
    forward = ("PortForward", "p", "{listen: '127.0.0.1:80', target: Container/web, port: 80}")
    assert resolved(WEB, forward)[ResourceId("PortForward", "p")].backend == "lxd/local"
    device = ("Device", "d", "{emulate: {driver: usb-tablet}, attachTo: VirtualMachine/vm}")
    assert resolved(VM, device)[ResourceId("Device", "d")].backend == QEMU


@pytest.mark.parametrize(
    "given",
    [
        "match: {usb: {vendor: '046d', product: c52b, serial: A1}}",
        "match: {usb: {bus: 1, port: '1.2'}}",
        "match: {pci: '0000:00:02.0'}",
        "match: {gpu: '0000:00:02.0'}",
        "match: {unix: /dev/ttyUSB0}",
    ],
)
def test_a_device_in_a_vm_is_what_the_manifest_matches(given: str) -> None:
    (entry,) = in_vm(("Device", "d", f"{{{given}, attachTo: VirtualMachine/vm}}"))["devices"].values()
    assert entry == manifest.parse(f"{{{given}}}", "x")[0].data["match"]


def test_an_emulated_device_keeps_its_options() -> None:
    given = "{emulate: {driver: usb-storage, removable: true}, attachTo: VirtualMachine/vm}"
    assert in_vm(("Device", "d", given))["devices"] == {"d": {"emulate": {"driver": "usb-storage", "removable": True}}}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("usb: {vendor: '046d', product: c52b}", {"type": "usb", "vendorid": "046d", "productid": "c52b"}),
        (
            "usb: {vendor: '046d', product: c52b, serial: A1}",
            {"type": "usb", "vendorid": "046d", "productid": "c52b", "serial": "A1"},
        ),
        ("gpu: '0000:00:02.0'", {"type": "gpu", "pci": "0000:00:02.0"}),
        ("unix: /dev/ttyUSB0", {"type": "unix-char", "source": "/dev/ttyUSB0", "path": "/dev/ttyUSB0"}),
        ("unix: /dev/loop7", {"type": "unix-block", "source": "/dev/loop7", "path": "/dev/loop7"}),
        ("unix: /dev/sdq", {"type": "unix-block", "source": "/dev/sdq", "path": "/dev/sdq"}),
        ("unix: /dev/ttyACM9", {"type": "unix-char", "source": "/dev/ttyACM9", "path": "/dev/ttyACM9"}),
    ],
)
def test_a_device_in_a_container_is_one_of_lxds(match: str, expected: dict[str, str]) -> None:
    found = in_container(("Device", "d", f"{{match: {{{match}}}, attachTo: Container/web, mode: '0666'}}"))
    required = {"required": "false"} if "unix" in match else {}  # it may come and go
    assert found == {"device-d": {**expected, **required, "mode": "0666"}}


def test_a_port_leads_into_its_guest() -> None:
    vm = ("PortForward", "p", "{listen: '127.0.0.1:8080', target: VirtualMachine/vm, port: 80}")
    assert in_vm(vm)["forwards"] == {"p": {"listen": "127.0.0.1:8080", "port": 80, "protocol": "tcp"}}
    web = ("PortForward", "p", "{listen: '[::1]:53', target: Container/web, port: 5353, protocol: udp}")
    proxy = {"type": "proxy", "listen": "udp:[::1]:53", "connect": "udp:127.0.0.1:5353", "bind": "host"}
    assert in_container(web) == {"port-p": proxy}


def test_a_disk_says_where_it_is_mounted() -> None:
    disk = ("Disk", "data", "{size: 1GiB, attachTo: VirtualMachine/vm, mount: /data}")
    assert in_vm(disk)["disks"]["data"]["mount"] == "/data"


def test_a_tpm_that_is_off_is_not_there() -> None:
    def machine(tpm: str) -> Any:
        return resolved(("VirtualMachine", "vm", f"{{boot: {{kernel: /k}}, tpm: {tpm}}}"))

    assert machine("true")[ResourceId("VirtualMachine", "vm")].spec["tpm"] is True
    assert "tpm" not in machine("false")[ResourceId("VirtualMachine", "vm")].spec


WRONG = [
    (
        "an unknown target",
        ("Share", "s", "{source: /s, mounts: [{target: Container/wep, path: /a}]}"),
        'there is no Container named "wep"',
        'did you mean "web"?',
    ),
    (
        "emulation in a container",
        ("Device", "d", "{emulate: {driver: usb-tablet}, attachTo: Container/web}"),
        "a container has no bus to emulate on",
        "attach it to a VirtualMachine",
    ),
    (
        "USB by port in a container",
        ("Device", "d", "{match: {usb: {bus: 1, port: '1'}}, attachTo: Container/web}"),
        "a container takes USB devices by vendor and product",
        "attach it to a VirtualMachine",
    ),
    (
        "PCI in a container",
        ("Device", "d", "{match: {pci: '0000:00:02.0'}, attachTo: Container/web}"),
        "a container has no PCI bus",
        "attach it to a VirtualMachine",
    ),
    (
        "a mode in a VM",
        ("Device", "d", "{match: {unix: /dev/x}, mode: '0600', attachTo: VirtualMachine/vm}"),
        "makes its own device nodes",
        "take it out",
    ),
]


@pytest.mark.parametrize(("given", "summary", "hint"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_a_guest_cannot_have_is_told_at_its_place(given: tuple[str, str, str], summary: str, hint: str) -> None:
    (problem,) = refused(given)
    assert summary in problem.summary and hint in (problem.hint or "")
    assert problem.subject == f"{given[0]}/{given[1]}"
    assert problem.mark is not None and problem.mark.line == 14 and problem.mark.column > 1


def test_a_machine_without_a_network_card_takes_no_port() -> None:
    forward = ("PortForward", "p", "{listen: '127.0.0.1:80', target: VirtualMachine/vm, port: 80}")
    with pytest.raises(ManifestError, match="has no network card"):
        resolved(("VirtualMachine", "vm", "{boot: {kernel: /k}}"), forward)


@pytest.mark.parametrize(
    "others",
    [
        [("Share", "a", "{source: /a, mounts: [{target: Container/web, path: /data}]}")],
        [("Volume", "a", "{pool: p, attachTo: [{target: Container/web, path: /data}]}")],
    ],
)
def test_two_things_at_one_path_of_a_guest(others: list[tuple[str, str, str]]) -> None:
    (problem,) = refused(*others, ("Share", "z", "{source: /z, mounts: [{target: Container/web, path: /data/}]}"))
    assert problem.summary == f"path: Container/web has {others[0][0]}/a at /data/"


def test_a_raw_device_and_a_share_at_one_path() -> None:
    raw = ("Container", "raw", "{image: 'images:a', devices: {d: {type: disk, source: /x, path: /data}}}")
    (problem,) = refused(raw, ("Share", "z", "{source: /z, mounts: [{target: Container/raw, path: /data}]}"))
    assert problem.summary == 'path: Container/raw has its device "d" at /data'


def test_a_disk_and_a_share_at_one_path() -> None:
    disk = ("Disk", "a", "{size: 1GiB, attachTo: VirtualMachine/vm, mount: /data}")
    (problem,) = refused(disk, ("Share", "z", "{source: /z, mounts: [{target: VirtualMachine/vm, path: /data}]}"))
    assert problem.summary == "path: VirtualMachine/vm has Disk/a at /data"


def test_another_machine_has_none_of_our_folders() -> None:
    far = ("Host", "far", "{lxd: {url: 'https://far:8443', serverCertificate: s, clientCertificate: c, clientKey: k}}")
    away = ("Container", "away", "{host: far, image: 'images:alpine'}")
    (problem,) = refused(far, away, ("Share", "s", "{source: /s, mounts: [{target: Container/away, path: /a}]}"))
    assert "lives on Host/far, which is another machine" in problem.summary


def test_a_machine_takes_so_much_and_no_more() -> None:
    def shares(count: int) -> list[tuple[str, str, str]]:
        mount = "{{source: /s, mounts: [{{target: VirtualMachine/vm, path: /s{}}}]}}"
        return [("Share", f"s{index}", mount.format(index)) for index in range(count)]

    room = MOST_PLUGGED - 3  # the agent's channel, what memory grows by, the network card
    assert len(in_vm(*shares(room))["shares"]) == room
    (problem,) = refused(*shares(room + 1))
    assert problem.summary.startswith("a machine takes at most 94 disks") and problem.subject == "VirtualMachine/vm"
