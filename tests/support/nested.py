"""A host with USB for tests: a VM that sees this machine's files, and in it our engine with a QEMU of its own.

This machine's kernel need not know USB: the outer VM's does, and the sticks that its QEMU emulates are real to it.
``python -m tests.support.nested PHASE`` is what runs inside.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.backends.host.listing import listing
from reconciler.backends.images.packages import read, workshop
from reconciler.backends.qemu import client, observe
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.client import Monitor
from tests.support.qemu import Lab

ROOT = Path(__file__).resolve().parents[2]
STATE = Path("/run/state")
_SLOW = 600.0
_SETUP = """
set -e
modprobe -a xhci_pci usb_storage usbhid 9p 9pnet_virtio
mkdir -p /h
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /h
for one in dev proc sys; do mount --bind /$one /h/$one; done
mount -t tmpfs run /h/run
"""
STICK = {"driver": "usb-storage", "id": "stick", "drive": "stick", "serial": "KEY1", "bus": "usb.0", "port": "3"}


@dataclass(frozen=True, slots=True)
class Outer:
    """The host made of a VM."""

    folder: Path

    def run(self, *words: str) -> str:
        """What a command in it says; it has to end well."""
        with Agent(self.folder / "agent", "outer", patience=120) as agent:
            done = agent.run(words, _SLOW)
        assert done.code == 0, done
        return done.out.decode()

    def engine(self, phase: str) -> dict[str, Any]:
        """What our engine does and sees there."""
        command = (
            f"cd {ROOT} && exec env HOME=/run TMPDIR=/run PYTHONDONTWRITEBYTECODE=1 {sys.executable} -m {__name__}"
        )
        said = self.run("chroot", "/h", "/bin/sh", "-c", f"{command} {phase}")
        return dict(json.loads(said.splitlines()[-1]))

    def plug(self) -> None:
        """Put the stick in."""
        with Monitor(self.folder / "qmp", "outer") as monitor:
            monitor.execute("device_add", STICK)

    def pull(self) -> None:
        """Pull the stick out."""
        with Monitor(self.folder / "qmp", "outer") as monitor:
            monitor.execute("device_del", {"id": "stick"})


@contextmanager
def outer_host(images: Path, folder: Path) -> Iterator[Outer]:
    """It runs, with udev at work in it. images: a store that holds the busybox VM."""
    [initrd] = images.glob("entries/virtual-machine-*/initrd")
    (folder / "stick").write_bytes(bytes(4 << 20))
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-M", "q35", "-m", "900"]
    command += ["-smp", "2", "-accel", "tcg,thread=multi", "-cpu", "max", "-serial", f"file:{folder}/serial"]
    command += ["-kernel", str(initrd.with_name("kernel")), "-initrd", str(initrd)]
    command += ["-append", "console=ttyS0 panic=-1 quiet no_timer_check"]
    for name in ("qmp", "agent"):
        command += ["-chardev", f"socket,id={name},path={folder}/{name},server=on,wait=off"]
    command += ["-mon", "chardev=qmp,mode=control", "-device", "virtio-serial-pci"]
    command += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    command += ["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]
    command += ["-device", "virtio-9p-pci,fsdev=host,mount_tag=host", "-device", "qemu-xhci,id=usb"]
    command += ["-blockdev", f"driver=file,filename={folder}/stick,node-name=stick"]
    command += ["-device", json.dumps(STICK), "-device", "usb-tablet,bus=usb.0"]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        outer = Outer(folder)
        while not (folder / "agent").exists():
            time.sleep(0.1)
        outer.run("/bin/sh", "-c", _SETUP)
        outer.run("chroot", "/h", str(_udev(folder)), "--daemon")
        yield outer
    finally:
        child.kill()
        child.wait()


def _udev(folder: Path) -> Path:
    """Its daemon: it is one program with udevadm, and goes by its name."""
    daemon = folder / "systemd-udevd"
    if installed := shutil.which("udevadm"):
        shutil.copyfile(installed, daemon)
    else:
        with workshop(folder, print) as packages:
            [program] = read(packages.download("udev"), ("bin/udevadm", "usr/bin/udevadm")).values()
            daemon.write_bytes(program)
    daemon.chmod(0o755)
    return daemon


def _inside(phase: str) -> dict[str, Any]:
    client.GREETING = client.ANSWER = observe.PATIENCE = 120.0  # a machine in a machine, both emulated
    STATE.mkdir(exist_ok=True)
    lab = Lab(STATE, timeout=_SLOW)
    stick = {"usb": {"vendor": "46f4", "product": "0001", "serial": "KEY1"}}
    tablet = {"usb": {"vendor": "0627", "product": "0001"}}
    devices = {} if phase == "remove" else {"stick": stick, "tablet": tablet}
    want = lab.idle(ready={"log": "idle: up", "timeout": _SLOW}, devices=devices)
    problems = []
    if phase in ("apply", "remove"):
        problems = [str(one.problem) for one in lab.apply(want) if one.problem is not None]
    return {
        "listed": {one.place: one.match for one in listing() if one.kind == "usb"},
        "problems": problems,
        "changes": [change.field for change in lab.changes(want)],
        "waiting": [one.message for one in lab.look().conditions],
        "attached": _attached(lab, devices),
        "owners": sorted(path.stat().st_uid for path in Path("/dev/bus/usb").rglob("*") if path.is_char_device()),
        "rules": len(list(Path("/run/udev/rules.d").glob("*"))),
        "uid": lab.record().uid,
    }


def _attached(lab: Lab, devices: dict[str, Any]) -> dict[str, bool]:
    """Which of them QEMU has got hold of."""
    with Monitor(lab.folder().people, "inner") as monitor:
        paths = {name: f"/machine/peripheral/device-{name}" for name in devices}
        return {
            name: monitor.execute("qom-get", {"path": path, "property": "attached"}) for name, path in paths.items()
        }


if __name__ == "__main__":
    print(json.dumps(_inside(sys.argv[1])))
