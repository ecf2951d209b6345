"""The host's devices, read from made sysfs trees: what is listed, how a manifest names it, and what VFIO insists on."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.backends.host.listing import Found, listing
from reconciler.backends.host.usb import usb_devices
from reconciler.backends.qemu.plugging import usb, vfio
from reconciler.problems import Refused

GPU, SOUND, CARD, BRIDGE = "0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:00:1c.0"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def usb_device(root: Path, place: str, address: int, ids: str, **words: str) -> None:
    vendor, _, product = ids.partition(":")
    folder = root / "sys/bus/usb/devices" / place
    facts = {"idVendor": vendor, "idProduct": product, "devnum": str(address), "bDeviceClass": "00", **words}
    for name, text in facts.items():
        put(folder / name, text)
    (root / "sys/bus/usb/devices" / f"{place}:1.0").mkdir()


def pci_device(root: Path, address: str, ids: str, kind: str, driver: str | None, group: str | None) -> None:
    vendor, _, product = ids.partition(":")
    folder = root / "sys/bus/pci/devices" / address
    for name, text in (("vendor", vendor), ("device", product), ("class", kind)):
        put(folder / name, f"0x{text}")
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
    if group:
        members = root / "sys/kernel/iommu_groups" / group / "devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / address).symlink_to(folder)
        (folder / "iommu_group").symlink_to(members.parent)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    usb_device(tmp_path, "usb1", 1, "1d6b:0002", bDeviceClass="09")
    usb_device(tmp_path, "1-1", 2, "05e3:0608", bDeviceClass="09")
    usb_device(tmp_path, "1-1.10", 9, "0951:1666", serial="B2")
    usb_device(tmp_path, "1-1.2", 7, "046d:c52b", manufacturer="Logitech", product="USB Receiver")
    usb_device(tmp_path, "2-1", 3, "0403:6001", product="line")
    usb_device(tmp_path, "2-2", 4, "0403:6001", product="line")
    put(tmp_path / "usr/share/misc/usb.ids", "# list\n0951  Kingston\n\t1666  DataTraveler\n\t\t00  x\nC 00  (Defined)")
    put(tmp_path / "usr/share/misc/pci.ids", "10de  NVIDIA\n\t1cb3  GP107GL\n")
    pci_device(tmp_path, GPU, "10de:1cb3", "030000", "vfio-pci", "7")
    pci_device(tmp_path, SOUND, "10de:0fb9", "040300", "vfio-pci", "7")
    pci_device(tmp_path, BRIDGE, "8086:a110", "060400", "pcieport", "7")
    pci_device(tmp_path, CARD, "8086:1533", "020000", "igb", "8")
    put(tmp_path / "dev/vfio/7", "")
    port = tmp_path / "sys/devices/serial0"
    port.mkdir(parents=True)
    put(tmp_path / "sys/class/tty/ttyS0/type", "4")
    put(tmp_path / "sys/class/tty/ttyS1/type", "0")
    for name in ("ttyS0", "ttyS1"):
        (tmp_path / "sys/class/tty" / name / "device").symlink_to(port)
    (tmp_path / "sys/class/tty/tty7").mkdir()
    for name, sectors in (("sda", 2048), ("sda1", 1024), ("loop0", 0), ("zram0", 99)):
        put(tmp_path / "sys/class/block" / name / "size", str(sectors))
    put(tmp_path / "sys/class/block/sda/device/model", "EVO")
    put(tmp_path / "proc/self/mounts", "/dev/sda1 / ext4 rw 0 0")
    put(tmp_path / "sys/class/tpm/tpm0/tpm_version_major", "2")
    return tmp_path


def named(host: Path) -> dict[str, Found]:
    return {one.name: one for one in listing(host)}


def test_everything_that_can_be_given_is_listed_with_its_manifest(host: Path) -> None:
    assert {name: one.match for name, one in named(host).items()} == {
        "logitech-usb-receiver": {"usb": {"vendor": "046d", "product": "c52b"}},
        "kingston-datatraveler": {"usb": {"vendor": "0951", "product": "1666", "serial": "B2"}},
        "line": {"usb": {"bus": 2, "port": "1"}},
        "line-2": {"usb": {"bus": 2, "port": "2"}},
        "nvidia-gp107gl": {"gpu": GPU},
        "nvidia": {"pci": SOUND},
        "pci-device": {"pci": CARD},
        "ttys0": {"unix": "/dev/ttyS0"},
        "sda": {"unix": "/dev/sda"},
        "sda1": {"unix": "/dev/sda1"},
        "tpm0": {"unix": "/dev/tpm0"},
    }


def test_the_notes_say_what_to_know_first(host: Path) -> None:
    found = named(host)
    assert found["nvidia-gp107gl"].note == "driver vfio-pci, IOMMU group 7"
    assert found["sda1"].note == "the host has mounted it at /"
    assert found["sda"].words == "EVO, 1MiB"
    assert found["line"].note == "one of several alike: named by its place"
    assert "tpm: true" in found["tpm0"].note


def test_a_host_without_anything_has_nothing(tmp_path: Path) -> None:
    assert listing(tmp_path) == []


def test_usb_devices_come_in_the_order_of_their_ports(host: Path) -> None:
    assert [(one.bus, one.port) for one in usb_devices(host)] == [(1, "1.2"), (1, "1.10"), (2, "1"), (2, "2")]


def test_a_serial_number_is_resolved_to_a_place_and_its_absence_waits(host: Path) -> None:
    wanted = {"vendor": "0951", "product": "1666", "serial": "B2"}
    device = {"driver": "usb-host", "vendorid": 0x951, "productid": 0x1666}
    assert usb.part_of(wanted, "", "", host)["device"] == {**device, "hostbus": 1, "hostport": "1.10"}
    assert usb.part_of({**wanted, "serial": "C3"}, "", "", host)["device"] is None
    assert usb.part_of({"vendor": "0951", "product": "1666"}, "", "", host)["device"] == device
    assert usb.part_of({"bus": 1, "port": "9"}, "", "", host)["device"] == {
        "driver": "usb-host",
        "hostbus": 1,
        "hostport": "9",
    }


def test_a_device_whose_group_is_all_vfios_may_go(host: Path) -> None:
    assert vfio.check(GPU, "VM", "gpu", gpu=True, root=host).address == GPU


@pytest.mark.parametrize(
    ("address", "summary"),
    [
        ("0000:09:00.0", "this host has no such PCI device"),
        (BRIDGE, "it is a bridge of the host"),
        (CARD, "its driver is igb, not vfio-pci"),
    ],
)
def test_each_missing_condition_is_named(host: Path, address: str, summary: str) -> None:
    with pytest.raises(Refused) as refused:
        vfio.check(address, "VM", "pci", root=host)
    assert refused.value.problem.summary == f"pci: {address}: {summary}"
    assert refused.value.problem.hint


def test_a_gpu_has_to_be_one(host: Path) -> None:
    with pytest.raises(Refused, match="it is no GPU"):
        vfio.check(SOUND, "VM", "gpu", gpu=True, root=host)


def test_another_of_its_group_that_the_host_uses_is_named(host: Path) -> None:
    driver = host / "sys/bus/pci/devices" / SOUND / "driver"
    driver.unlink()
    (host / "sys/bus/pci/drivers/snd_hda_intel").mkdir()
    driver.symlink_to(host / "sys/bus/pci/drivers/snd_hda_intel")
    with pytest.raises(Refused, match=rf"others of its IOMMU group 7: {SOUND} \(snd_hda_intel\)"):
        vfio.check(GPU, "VM", "gpu", root=host)


def test_the_group_has_to_have_a_node(host: Path) -> None:
    (host / "dev/vfio/7").unlink()
    with pytest.raises(Refused, match="there is no /dev/vfio/7"):
        vfio.check(GPU, "VM", "gpu", root=host)


def test_without_an_iommu_nothing_goes(tmp_path: Path) -> None:
    pci_device(tmp_path, CARD, "8086:1533", "020000", "igb", None)
    with pytest.raises(Refused) as refused:
        vfio.check(CARD, "VM", "pci", root=tmp_path)
    assert refused.value.problem.summary.endswith("the host's IOMMU is off, or there is none")
    assert "intel_iommu=on" in str(refused.value.problem.hint)
    assert named(tmp_path)["pci-device"].note == "driver igb, no IOMMU: not for VMs"


def test_one_that_the_iommu_leaves_out_does_not_go(host: Path) -> None:
    pci_device(host, "0000:05:00.0", "8086:1533", "020000", "vfio-pci", None)
    with pytest.raises(Refused, match="the IOMMU does not cover it"):
        vfio.check("0000:05:00.0", "VM", "pci", root=host)
