"""resolution/through: what is aimed at a container inside of a VM is part of both, and where that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.model import Desired, ResourceId
from reconciler.problems import ManifestError, Problem
from reconciler.resolution.through import EMULATED
from tests.core.test_attaching import resolved

Manifest = tuple[str, str, str]
NEST: Manifest = ("VirtualMachine", "nest", "{boot: {kernel: /k}, lxd: true, nics: [{name: net}]}")
DEEP: Manifest = ("Container", "deep", "{host: nest, image: 'images:alpine'}")
OTHER: Manifest = ("Container", "other", "{host: nest, image: 'images:alpine'}")
FLAT: Manifest = ("Container", "flat", "{image: 'images:alpine'}")
TOWER = (NEST, DEEP, OTHER, FLAT)
STICK = "match: {usb: {vendor: '046d', product: c52b%s}}"


def led(*manifests: Manifest) -> tuple[Any, Any]:
    """What the VM, and what the container in it, gets of these."""
    found = resolved(*TOWER, *manifests)
    specs = [found[ResourceId.parse(one)].spec for one in ("VirtualMachine/nest", "Container/deep")]
    return specs[0], specs[1].get("devices")


def refused(*manifests: Manifest) -> Problem:
    with pytest.raises(ManifestError) as caught:
        resolved(*TOWER, *manifests)
    (problem,) = caught.value.problems
    return problem


def share(*mounts: str, extra: str = "") -> Manifest:
    listed = ", ".join(f"{{target: {target}, path: {path}}}" for target, path in (one.split() for one in mounts))
    return "Share", "site", f"{{source: /srv, mounts: [{listed}]{extra}}}"


def test_a_share_is_mounted_by_the_vm_and_the_container_has_it_from_there() -> None:
    machine, devices = led(share("Container/deep /www"))
    assert machine["shares"] == {"site": {"source": "/srv", "readOnly": True, "path": "/mnt/shares/site"}}
    disk = {"type": "disk", "source": "/mnt/shares/site", "path": "/www", "readonly": "true"}
    assert devices == {"share-site": disk}


def test_a_vm_that_mounts_the_share_itself_passes_that_on() -> None:
    for mounts in (
        ("VirtualMachine/nest /srv", "Container/deep /www"),
        ("Container/deep /www", "VirtualMachine/nest /srv"),
    ):
        machine, devices = led(share(*mounts))
        assert machine["shares"] == {"site": {"source": "/srv", "readOnly": True, "path": "/srv"}}
        assert devices["share-site"]["source"] == "/srv"


def test_two_containers_of_one_vm_share_its_mount() -> None:
    found = resolved(*TOWER, share("Container/deep /a", "Container/other /b"))
    assert list(found[ResourceId("VirtualMachine", "nest")].spec["shares"]) == ["site"]
    sources = [
        found[ResourceId("Container", name)].spec["devices"]["share-site"]["source"] for name in ("deep", "other")
    ]
    assert sources == ["/mnt/shares/site"] * 2


def test_a_share_that_may_be_written_keeps_the_owners_of_the_first_user() -> None:
    def config(extra: str) -> Any:
        found = resolved(*TOWER, share("Container/deep /www", extra=extra))
        assert "config" not in found[ResourceId("Container", "flat")].spec
        return found[ResourceId("Container", "deep")].spec["config"]

    assert config("") == {"boot.autostart": "false"}
    assert config(", readOnly: false") == {"boot.autostart": "false", "raw.idmap": "both 1000 1000"}


def test_the_first_user_is_the_account_that_the_container_declares() -> None:
    deep = ("Container", "deep", "{host: nest, image: 'images:a', user: {name: ada, uid: 1234}}")
    found = resolved(NEST, deep, share("Container/deep /www", extra=", readOnly: false"))
    assert found[ResourceId("Container", "deep")].spec["config"]["raw.idmap"] == "both 1000 1234"


def test_what_the_manifest_says_of_a_container_counts() -> None:
    deep = ("Container", "deep", "{host: nest, image: 'images:a', config: {boot.autostart: true}}")
    found: dict[ResourceId, Desired] = resolved(NEST, deep)
    assert found[ResourceId("Container", "deep")].spec["config"] == {"boot.autostart": "true"}


def test_a_declared_host_leads_into_its_vm_too() -> None:
    host = ("Host", "inner", "{lxd: {virtualMachine: nest}}")
    deep = ("Container", "deeper", "{host: inner, image: 'images:alpine'}")
    found = resolved(NEST, host, deep, ("Share", "s", "{source: /s, mounts: [{target: Container/deeper, path: /a}]}"))
    assert "s" in found[ResourceId("VirtualMachine", "nest")].spec["shares"]
    assert found[ResourceId("Share", "s")].needs == (
        ResourceId("Container", "deeper"),
        ResourceId("VirtualMachine", "nest"),
    )


@pytest.mark.parametrize("driver", sorted(EMULATED))
def test_an_emulated_device_goes_into_the_vm_and_is_known_by_its_ids_there(driver: str) -> None:
    machine, devices = led(
        ("Device", "d", f"{{emulate: {{driver: {driver}}}, attachTo: Container/deep, mode: '0666'}}")
    )
    assert machine["devices"] == {"d": {"emulate": {"driver": driver}}}
    vendor, product = EMULATED[driver]
    assert devices == {"device-d": {"type": "usb", "vendorid": vendor, "productid": product, "mode": "0666"}}


def test_a_device_of_this_machine_goes_the_same_way_and_its_serial_number_only_into_the_vm() -> None:
    machine, devices = led(("Device", "d", f"{{{STICK % ', serial: A1'}, attachTo: Container/deep}}"))
    assert machine["devices"] == {"d": {"usb": {"vendor": "046d", "product": "c52b", "serial": "A1"}}}
    assert devices == {"device-d": {"type": "usb", "vendorid": "046d", "productid": "c52b"}}


def test_two_alike_are_told_apart_by_serial_numbers_where_both_have_one() -> None:
    first, second = (
        ("Device", name, f"{{{STICK % f', serial: {name}'}, attachTo: Container/{where}}}")
        for name, where in (("a", "deep"), ("b", "other"))
    )
    found = resolved(*TOWER, first, second)
    assert found[ResourceId("Container", "deep")].spec["devices"]["device-a"]["serial"] == "a"
    assert found[ResourceId("Container", "other")].spec["devices"]["device-b"]["serial"] == "b"


@pytest.mark.parametrize("where", ["VirtualMachine/nest", "Container/other", "Container/deep"])
def test_two_alike_without_serial_numbers_are_refused(where: str) -> None:
    first = ("Device", "a", f"{{emulate: {{driver: usb-tablet}}, attachTo: {where}}}")
    second = ("Device", "b", "{emulate: {driver: usb-mouse}, attachTo: Container/deep}")
    for order in ((first, second), (second, first)):
        problem = refused(*order)
        assert "0627:0001 in VirtualMachine/nest as well, and LXD could not tell them apart" in problem.summary


def test_two_alike_in_a_vm_alone_are_its_own_affair() -> None:
    pads = [("Device", name, "{emulate: {driver: usb-tablet}, attachTo: VirtualMachine/nest}") for name in "ab"]
    away = ("Device", "c", "{match: {usb: {vendor: '0627', product: '0001'}}, attachTo: Container/flat}")
    assert set(led(*pads, away)[0]["devices"]) == {"a", "b"}


def forward(name: str, listen: int, target: str = "Container/deep", port: int = 80) -> Manifest:
    return "PortForward", name, f"{{listen: '127.0.0.1:{listen}', target: {target}, port: {port}}}"


def test_a_port_leads_through_one_of_the_vms_that_its_name_decides() -> None:
    machine, devices = led(forward("web", 8080))
    through = machine["forwards"]["web"]["port"]
    assert machine["forwards"]["web"] == {"listen": "127.0.0.1:8080", "port": through, "protocol": "tcp"}
    assert devices["port-web"] == {
        "type": "proxy",
        "listen": f"tcp:0.0.0.0:{through}",
        "connect": "tcp:127.0.0.1:80",
        "bind": "host",
    }
    assert 10_000 <= through < 32_000
    more = led(forward("another", 8081), forward("web", 8080), forward("zebra", 8082))[0]["forwards"]
    assert more["web"]["port"] == through and len({one["port"] for one in more.values()}) == 3


def test_a_port_of_the_vm_that_is_wanted_otherwise_is_refused() -> None:
    through = led(forward("web", 8080))[0]["forwards"]["web"]["port"]
    problem = refused(forward("web", 8080), forward("own", 8081, "VirtualMachine/nest", through))
    assert (
        problem.summary
        == f"target: PortForward/web has port {through} of VirtualMachine/nest, which is given by the name"
    )


def test_a_disk_is_mounted_by_the_vm_and_its_owners_are_the_containers() -> None:
    machine, devices = led(("Disk", "data", "{size: 1GiB, attachTo: Container/deep, mount: /data}"))
    plugged = {"disk": "data", "format": "qcow2", "readOnly": False, "mount": "/mnt/disks/data"}
    assert machine["disks"] == {"data": plugged}
    entry = {"type": "disk", "source": "/mnt/disks/data", "path": "/data", "readonly": "false", "shift": "true"}
    assert devices == {"disk-data": entry}


DEVICE = "{%s, attachTo: Container/deep}"
WRONG = [
    (("Device", "d", DEVICE % "match: {usb: {bus: 1, port: '1'}}"), "by vendor and product", "not bus and port"),
    (("Device", "d", DEVICE % "match: {pci: '0000:00:02.0'}"), "matched by pci", "VirtualMachine"),
    (("Device", "d", DEVICE % "match: {gpu: '0000:00:02.0'}"), "matched by gpu", "VirtualMachine"),
    (("Device", "d", DEVICE % "match: {unix: /dev/ttyS0}"), "matched by unix", "VirtualMachine"),
    (("Device", "d", DEVICE % "emulate: {driver: virtio-rng-pci}"), "virtio-rng-pci cannot be given on", "usb-ccid"),
    (("Disk", "d", "{size: 1GiB, attachTo: Container/deep}"), "not said where", "mount"),
    (("Disk", "d", "{size: 1GiB, attachTo: Container/flat, mount: /d}"), "not inside of a VM", "Volume"),
]


@pytest.mark.parametrize(("given", "summary", "hint"), WRONG)
def test_what_cannot_be_led_on_is_told_at_its_place(given: Manifest, summary: str, hint: str) -> None:
    problem = refused(given)
    assert summary in problem.summary and hint in (problem.hint or "")
    assert problem.subject == f"{given[0]}/d" and problem.mark is not None and problem.mark.column > 1


def test_what_the_vm_has_of_its_own_at_that_path_is_no_place_for_it() -> None:
    other = ("Share", "z", "{source: /z, mounts: [{target: VirtualMachine/nest, path: /mnt/shares/site}]}")
    assert "VirtualMachine/nest has Share/z at /mnt/shares/site" in refused(other, share("Container/deep /a")).summary


def test_a_vm_without_a_network_card_leads_no_port_on() -> None:
    bare = ("VirtualMachine", "nest", "{boot: {kernel: /k}, lxd: true}")
    with pytest.raises(ManifestError, match="VirtualMachine/nest has no network card"):
        resolved(bare, DEEP, forward("web", 8080))
