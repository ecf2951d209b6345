"""The busybox VM in a real QEMU, emulated: up in a few seconds, and all its ways in and out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pycdlib
import pytest

from reconciler.backends.images import MachineImage, machine_image
from tests.images.lxc import until
from tests.images.vm import Vm

USER_NETWORK = ("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net")
HAS_ADDRESS = "ip -4 addr show eth0 2>/dev/null | grep -q 10.0.2.15"
PROMPT = rb"root@busybox:~# "
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE.fd")


@pytest.fixture(scope="module")
def vm(busybox_machine: MachineImage) -> Iterator[Vm]:
    """One for all tests that leave it running."""
    ports = [word for number in range(4) for word in ("-device", f"pcie-root-port,id=port{number},chassis={number}")]
    with Vm(busybox_machine, *ports, "-smp", "1,maxcpus=2") as started:
        started.ready()
        started.serial.until(PROMPT)
        yield started


def test_it_is_small_and_comes_up(busybox_machine: MachineImage) -> None:
    with Vm(busybox_machine) as vm:
        vm.ready()
    assert busybox_machine.initrd is not None
    assert busybox_machine.initrd.stat().st_size < 24 << 20


def test_the_agent(vm: Vm) -> None:
    assert vm.agent.ask("guest-ping") == {}
    assert vm.agent.ask("guest-get-host-name") == {"host-name": "busybox"}
    assert vm.run("id -un; echo $PATH; stat -c %a /tmp").split() == ["root", vm.run("echo $PATH").strip(), "1777"]
    assert "no_timer_check" in vm.run("cat /proc/cmdline").split()
    assert "lo" in {one["name"] for one in vm.agent.ask("guest-network-get-interfaces")}


def test_the_agent_is_started_again(vm: Vm) -> None:
    before = vm.run("pidof qemu-ga").strip()
    vm.serial.send(f"kill {before}; {until(f'pidof qemu-ga | grep -vw {before}')}; echo again $?\n".encode())
    vm.serial.until(rb"again 0\r\n")
    assert vm.agent.ask("guest-ping") == {}


def test_the_serial_shell(vm: Vm) -> None:
    vm.serial.send(b"echo $((6 * 7)); tty\n")
    vm.serial.until(rb"42\r\n/dev/ttyS0\r\n")
    vm.serial.send(b"sleep 1000\n")
    vm.run(until("pidof sleep"))
    vm.serial.send(b"\x03echo interrupted $?\n")
    vm.serial.until(rb"interrupted 130\r\n")
    vm.serial.send(b"sleep 1000 &\njobs\n")
    vm.serial.until(rb"\[1\]\+ +Running +sleep 1000\r\n")
    vm.serial.send(b"kill %1\nexit\n")
    vm.serial.until(rb"root@busybox:")


def test_little_is_loaded(vm: Vm) -> None:
    vm.run(until("grep -q ^ahci /proc/modules"))
    loaded = {line.split()[0] for line in vm.run("cat /proc/modules").splitlines()}
    assert {"virtio_pci", "virtio_console", "button", "evdev"} <= loaded
    assert not loaded & {"ext4", "xhci_pci", "usb_storage", "virtio_blk", "e1000"}


def test_cards_are_plugged_and_unplugged(vm: Vm) -> None:
    vm.monitor.ask("netdev_add", type="user", id="late")
    vm.monitor.ask("device_add", driver="virtio-net-pci", netdev="late", id="card", bus="port0")
    vm.run(until(HAS_ADDRESS))
    vm.run(until("grep -q 10.0.2.3 /etc/resolv.conf"))
    assert "default via 10.0.2.2" in vm.run("ip route")
    vm.monitor.ask("device_del", id="card")
    vm.run(until("! [ -e /sys/class/net/eth0 ]"))
    vm.run(until("! pidof udhcpc"))


def test_disks_are_plugged_and_mounted(vm: Vm, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(8 << 20))
    vm.monitor.ask("blockdev-add", **{"driver": "file", "filename": str(tmp_path / "disk"), "node-name": "disk"})
    vm.monitor.ask("device_add", driver="virtio-blk-pci", drive="disk", id="disk", bus="port1")
    vm.run(until("[ -b /dev/vda ]"))
    vm.run("mke2fs /dev/vda && mount -t ext4 /dev/vda /mnt && echo kept >/mnt/x && umount /mnt")
    assert b"kept" in (tmp_path / "disk").read_bytes()


def test_usb_is_plugged(vm: Vm, tmp_path: Path) -> None:
    (tmp_path / "stick").write_bytes(b"stick".ljust(1 << 20, b"\0"))
    vm.monitor.ask("blockdev-add", **{"driver": "file", "filename": str(tmp_path / "stick"), "node-name": "stick"})
    vm.monitor.ask("device_add", driver="qemu-xhci", id="usb", bus="port2")
    vm.run(until("grep -q ^xhci_pci /proc/modules"))
    vm.monitor.ask("device_add", driver="usb-storage", drive="stick", id="stick", bus="usb.0")
    vm.run(until("[ -b /dev/sda ]"))
    assert vm.run("head -c 5 /dev/sda") == "stick"


def test_processors_are_plugged(vm: Vm) -> None:
    (free,) = [cpu for cpu in vm.monitor.ask("query-hotpluggable-cpus") if "qom-path" not in cpu]
    vm.monitor.ask("device_add", driver=free["type"], id="cpu", **free["props"])
    vm.run(until("[ $(nproc) = 2 ]"))


def test_memory_that_comes_is_used(vm: Vm) -> None:
    assert vm.run("cat /sys/devices/system/memory/auto_online_blocks").strip() == "online"


@pytest.fixture
def fresh(busybox_machine: MachineImage) -> Iterator[Vm]:
    """One for a test that stops it."""
    with Vm(busybox_machine, *USER_NETWORK) as started:
        started.ready()
        yield started


def test_the_power_button(fresh: Vm) -> None:
    fresh.run(until(HAS_ADDRESS))
    fresh.run("trap 'echo asked >/dev/console' TERM; (while :; do usleep 10000; done) >/dev/null 2>&1 &")
    fresh.run(until("pidof acpid"))
    fresh.monitor.ask("system_powerdown")
    fresh.serial.until(rb"reconciler-guest: poweroff\r\n")
    assert fresh.ended() == 0


@pytest.mark.parametrize(("mode", "word"), [("powerdown", rb"poweroff"), ("reboot", rb"reboot")])
def test_shut_down_by_the_agent(fresh: Vm, mode: str, word: bytes) -> None:
    fresh.agent.ask("guest-ping")
    fresh.agent.send(b'{"execute": "guest-shutdown", "arguments": {"mode": "%s"}}\n' % mode.encode())
    fresh.serial.until(rb"reconciler-guest: " + word + rb"\r\n")
    assert fresh.ended() == 0


def test_a_disk_is_whole_after_shutdown(busybox_machine: MachineImage, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(8 << 20))
    disk = ("-blockdev", f"file,filename={tmp_path / 'disk'},node-name=disk", "-device", "virtio-blk-pci,drive=disk")
    with Vm(busybox_machine, *disk) as vm:
        vm.ready()
        vm.run("mke2fs /dev/vda && mount -t ext4 /dev/vda /mnt && echo precious >/mnt/x")
        vm.serial.until(PROMPT)
        vm.serial.send(b"poweroff\n")
        assert vm.ended() == 0
    assert b"precious" in (tmp_path / "disk").read_bytes()
    state = (tmp_path / "disk").read_bytes()[1024 + 58]
    assert state & 1, "not unmounted cleanly"


def seed(path: Path, label: str, **files: str) -> Path:
    """A NoCloud seed."""
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident=label, joliet=3, rock_ridge="1.09")
    for number, (name, text) in enumerate(files.items()):
        plain = name.replace("_", "-")
        content = text.encode()
        iso.add_fp(io.BytesIO(content), len(content), f"/FILE{number}.;1", rr_name=plain, joliet_path=f"/{plain}")
    iso.write(str(path))
    iso.close()
    return path


META = "instance-id: one\nlocal-hostname: 'web'\n"


@pytest.mark.parametrize(
    ("label", "devices"),
    [
        ("cidata", ["virtio-blk-pci,drive=seed"]),
        ("CIDATA", ["ide-cd,drive=seed"]),
        ("cidata", ["virtio-scsi-pci,id=scsi", "scsi-cd,drive=seed"]),
    ],
)
def test_nocloud(busybox_machine: MachineImage, tmp_path: Path, label: str, devices: list[str]) -> None:
    script = "#!/bin/sh\necho for-$(hostname) >/root/ran\n"
    path = seed(tmp_path / "seed.iso", label, meta_data=META, user_data=script)
    options = ["-blockdev", f"file,filename={path},node-name=seed,read-only=on"]
    with Vm(busybox_machine, *options, *(word for one in devices for word in ("-device", one))) as vm:
        vm.ready()
        vm.run(until("[ -e /var/lib/cloud/instance/boot-finished ]"))
        assert vm.run("hostname; cat /etc/hostname /root/ran").split() == ["web", "web", "for-web"]
        assert vm.agent.ask("guest-get-host-name") == {"host-name": "web"}


def test_nocloud_on_fat(busybox_machine: MachineImage, tmp_path: Path) -> None:
    """Made in the guest of one VM, read by the next."""
    path = tmp_path / "seed.img"
    path.write_bytes(bytes(4 << 20))
    disk = ("-blockdev", f"file,filename={path},node-name=seed", "-device", "virtio-blk-pci,drive=seed")
    with Vm(busybox_machine, *disk) as vm:
        vm.ready()
        vm.run("mkdosfs -n CIDATA /dev/vda && mount -t vfat /dev/vda /mnt")
        vm.run("printf 'instance-id: fat\nlocal-hostname: fat\n' >/mnt/meta-data; umount /mnt")
    with Vm(busybox_machine, *disk) as vm:
        vm.ready()
        assert vm.run("hostname") == "fat\n"


def test_user_data_for_a_real_cloud_init(busybox_machine: MachineImage, tmp_path: Path) -> None:
    path = seed(tmp_path / "seed.iso", "cidata", meta_data=META, user_data="#cloud-config\npackages: [vim]\n")
    options = ["-blockdev", f"file,filename={path},node-name=seed,read-only=on", "-device", "virtio-blk-pci,drive=seed"]
    with Vm(busybox_machine, *options) as vm:
        vm.serial.until(rb"user-data is not a script: left alone\r\n")
        vm.ready()


@pytest.mark.proof
def test_the_packed_kernel_boots_from_uefi(busybox_machine: MachineImage) -> None:
    with Vm(busybox_machine, "-bios", str(FIRMWARE), kernel=busybox_machine.kernel) as vm:
        vm.ready()
        assert vm.run("[ -d /sys/firmware/efi ] && uname -s") == "Linux\n"


def test_a_named_kernel_without_modules(busybox_machine: MachineImage, lasting_state: Path, tmp_path: Path) -> None:
    """The distribution's kernel has virtio in modules: without them it still boots, and says so on the console."""
    assert busybox_machine.kernel is not None
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(busybox_machine.kernel.read_bytes())
    recipe = {"recipe": "busybox", "kernel": str(kernel), "files": [{"path": "/etc/motd", "content": "mine\n"}]}
    image = machine_image({"build": recipe}, lasting_state, lambda _: None)
    with Vm(image, machine="pc") as vm:
        vm.ready()
        vm.serial.until(rb"mine\r\n")
        vm.serial.until(PROMPT)
        vm.serial.send(b"cat /etc/motd; wc -l /proc/modules\n")
        vm.serial.until(rb"mine\r\n0 /proc/modules\r\n")
