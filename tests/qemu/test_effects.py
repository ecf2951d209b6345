"""Every row of QEMU's effects table is shown on a guest that runs: by its own word, and by its boot id."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.images.busybox.machine import COMMAND_LINE as LINE
from reconciler.backends.images.tree import file as tree_file
from reconciler.backends.images.tree import write_cpio
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.effects import TABLE
from reconciler.backends.qemu.readiness import Guest, await_ready
from reconciler.backends.qemu.records import make_uuid
from reconciler.diff import diff
from reconciler.effects import find_rule
from reconciler.model import Desired, Effect, Power, ResourceId, Result, Step, Verb
from tests.support.proofs import BOOT_ID, Proof
from tests.support.qemu import BUSYBOX, IDENTITY, MIB, Lab, files, lab_in
from tests.support.unique import own_port

USER = {"type": "user", "model": "virtio-net-pci"}
MAIN = {"image": {"name": BUSYBOX, "identity": IDENTITY}}
BASE: Mapping[str, Any] = {
    "cpus": {"count": 1, "max": 3},
    "memory": {"size": 256 * MIB, "max": 512 * MIB},
    "boot": MAIN,
    "ready": {"guestAgent": True, "timeout": 160},
}
OWN = {"own": {"size": MIB, "format": "raw", "readOnly": False}}
MARK = "printf marked | dd of=$(dev own) bs=512 conv=sync oflag=direct 2>/dev/null"
IDS = {"VirtualMachine": "vm", "Disk": "data", "Image": "second"}
WHICH = "cat /etc/which 2>/dev/null || echo none"
TOLD = "cat /run/told"
SIZE = "cat /sys/class/block/$(basename $(dev data))/size 2>/dev/null; true"
READ_ONLY = "cat /sys/class/block/$(basename $(dev data))/ro 2>/dev/null; true"
CARDS = "cat /sys/class/net/e*/address 2>/dev/null; true"
PRODUCTS = "cat /sys/bus/usb/devices/*/product 2>/dev/null | grep -v Controller; true"
ORDER = r"""
modprobe -r qemu_fw_cfg; modprobe qemu_fw_cfg  # it knows the sizes that files had when it was loaded
order=/sys/firmware/qemu_fw_cfg/by_name/bootorder/raw
for port in $(tr '\0' '\n' <$order | sed -n 's/.*bridge@\([^/]*\).scsi.*/\1/p'); do
    case $port in *,*) port=${port%,*}.${port#*,} ;; *) port=$port.0 ;; esac
    for d in /sys/block/vd*; do case $(readlink -f $d) in */0000:00:$port/*) echo $(cat $d/serial) ;; esac; done
done"""
MOUNTED = "grep -c ' /data ' /proc/mounts; true"


def _disk(name: str = "data", **spec: Any) -> Callable[[Lab], list[Desired]]:
    """A Disk, with its own name on it."""

    def made(lab: Lab) -> list[Desired]:
        return [lab.desired("Disk", name, {"size": MIB, "format": "raw", "readOnly": False, **spec})]

    return made


def _attached(name: str = "data", **more: Any) -> dict[str, Any]:
    return {"disks": {"data": {"disk": name, "format": "raw", "readOnly": False, **more}}}


def _written(lab: Lab) -> list[Desired]:
    """Two Disks with their names on them."""
    disks = [*_disk("one")(lab), *_disk("two")(lab)]
    for disk in disks:
        file = lab.state / f"disks/{disk.id.name}.raw"
        if not file.exists():
            lab.converge(disk)
            file.write_bytes(disk.id.name.encode().ljust(MIB, b"\0"))
    return disks


def _second(says: str = "second", identity: str = "c" * 64) -> Callable[[Lab], list[Desired]]:
    """An image like the other, with a file of its own in it."""
    source = {"build": {"recipe": "busybox", "files": [{"path": "/etc/which", "content": says}]}}
    spec = {"type": "virtual-machine", "source": source, "identity": identity}
    return lambda lab: [lab.desired("Image", "second", spec)]


SECOND = {"image": {"name": "second", "identity": "c" * 64}}


def _golden(lab: Lab) -> list[Desired]:
    """Two images that are disks, with their names on them."""
    return [_image(lab, "one"), _image(lab, "two")]


def _image(lab: Lab, name: str) -> Desired:
    path = lab.state / f"{name}.raw"
    if not path.exists():
        path.write_bytes(name.encode().ljust(MIB, b"\0"))
    spec = {"type": "virtual-machine", "source": {"file": str(path), "format": "raw"}, "identity": _digest(name)}
    return lab.desired("Image", name, spec)


def _digest(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


def _from(name: str) -> dict[str, Any]:
    return {"image": {"name": name, "identity": _digest(name)}, "format": "qcow2", "readOnly": False, "size": MIB}


def _by_path(name: str, **more: Any) -> Callable[[Lab], dict[str, Any]]:
    def made(lab: Lab) -> dict[str, Any]:
        path = Path(_image(lab, name).spec["source"]["file"])
        return {"disks": {"data": {"path": str(path), "format": "raw", "readOnly": True, **more}}}

    return made


def _booted(kernel: str = "kernel.elf", initrd: str = "initrd", line: str = LINE) -> Callable[[Lab], dict[str, Any]]:
    """A boot from files: the image's kernel, packed or not, and its initrd, alone or with a file more in it."""

    def made(lab: Lab) -> dict[str, Any]:
        paths = {name: str(_kernels(lab) / given) for name, given in (("kernel", kernel), ("initrd", initrd))}
        return {"boot": {**paths, "commandLine": line}}

    return made


def _kernels(lab: Lab) -> Path:
    folder = lab.state / "kernels"
    if not folder.exists():
        folder.mkdir()
        entry = next((lab.state / "images/entries").glob("virtual-machine-*/kernel.elf")).parent
        for name in ("kernel", "kernel.elf", "initrd"):
            (folder / name).write_bytes((entry / name).read_bytes())
        with (folder / "initrd.more").open("wb") as target:
            target.write((folder / "initrd").read_bytes())
            write_cpio(target, {"etc/which": tree_file(b"more")})
    return folder


def _identity(lab: Lab) -> str:
    """Under which name the guest's hardware knows itself."""
    name = "new" if lab.folder("new").exists() else "old"
    own = lab.inside("cat", "/sys/class/dmi/id/product_uuid", name=name)
    known = {str(make_uuid(lab.state, lab.environment, f"VirtualMachine/{each}")): each for each in ("old", "new")}
    return known.get(own, own)


PORT = own_port()


def _through(lab: Lab) -> str:
    """What the guest answers on a port of ours."""
    lab.inside("sh", "-c", "pidof nc >/dev/null || { nc -ll -p 80 -e uname >/dev/null 2>&1 & }")
    try:
        with socket.create_connection(("127.0.0.1", PORT), 10) as sock:
            sock.settimeout(10)
            return sock.recv(16).decode().strip()
    except ConnectionRefusedError:
        return "closed"
    except (ConnectionResetError, TimeoutError):
        return "nothing yet"


def _share(name: str) -> Callable[[Lab], dict[str, Any]]:
    def made(lab: Lab) -> dict[str, Any]:
        folder = Path(f"{lab.state}-{name}")
        folder.mkdir(exist_ok=True)
        (folder / "which").write_text(name)
        return {"shares": {"data": {"source": str(folder), "readOnly": False, "path": "/mnt/data"}}}

    return made


def _file(text: str) -> dict[str, Any]:
    return {"files": files({"/run/told": text.encode()})[0]}


PAYLOAD = {**files({"/x": b"one"})[1], **files({"/x": b"two"})[1]}


def _seed(text: str) -> dict[str, Any]:
    return {"cloudInit": {"userData": f"#!/bin/sh\necho {text} >/run/told\n"}}


def _run(text: str) -> dict[str, Any]:
    return {"run": [{"command": ["sh", "-c", f"echo {text} >/run/told"], "when": "change"}]}


UEFI = {"firmware": "uefi", "memory": {"size": 320 * MIB, "max": 512 * MIB}}
CONSOLE = {"ready": {"log": "reconciler-guest: ready", "timeout": 160}}
GREW = 'awk \'/MemTotal/ {print ($2 > %d ? "more" : "less")}\' /proc/meminfo'
REGION = "dmesg | sed -n 's/.*virtio_mem.*region size: //p'"

MACHINE: Mapping[str, Proof] = {
    # While it runs. Each begins where the one before has ended, or is brought to its beginning.
    "power": Proof({"power": "paused"}, {}, "echo awake", (None, "awake")),
    "files.**": Proof(_file("one"), _file("two"), TOLD, ("one", "two"), payload=PAYLOAD),
    "run.**": Proof(_run("one"), _run("two"), TOLD, ("one", "two")),
    "restart": Proof({}, {"restart": "always"}, "echo untouched", ("untouched", "untouched")),
    "memory.size": Proof({}, {"memory": {"size": 320 * MIB, "max": 512 * MIB}}, GREW % 190000, ("less", "more")),
    "disks.*": Proof({}, {"disks": OWN}, '[ -n "$(dev own)" ]; echo $?', ("1", "0")),
    "disks.*.size": Proof(
        {"disks": {"data": OWN["own"]}}, {"disks": {"data": {**OWN["own"], "size": 2 * MIB}}}, SIZE, ("2048", "4096")
    ),
    "disks.*.size (smaller)": Proof(
        {"disks": {"data": {**OWN["own"], "size": 2 * MIB}}},
        {"disks": {"data": OWN["own"]}},
        SIZE,
        ("4096", "4096"),
        effect=Effect.IMPOSSIBLE,
    ),
    "disks.*.path": Proof(_by_path("one"), _by_path("two"), "text data", ("one", "two")),
    "disks.*.readOnly": Proof(_by_path("one"), _by_path("one", readOnly=False), READ_ONLY, ("1", "0")),
    "disks.*.disk": Proof(_attached("one"), _attached("two"), "text data", ("one", "two"), (_written, _written)),
    "disks.*.mount": Proof(_attached(), _attached(mount="/data"), MOUNTED, ("0", "1"), (_disk(), _disk())),
    "bootOrder": Proof(
        {"disks": {**OWN, "b": OWN["own"]}, "bootOrder": ["own", "b"]},
        {"disks": {**OWN, "b": OWN["own"]}, "bootOrder": ["b", "own"]},
        ORDER,
        (None, "b\nown"),
        next_boot=True,
    ),
    "nics.*": Proof({}, {"nics": {"a": {**USER, "mac": "52:54:00:00:00:01"}}}, CARDS, ("", "52:54:00:00:00:01")),
    "nics.*.*": Proof(
        {"nics": {"a": {**USER, "mac": "52:54:00:00:00:01"}}},
        {"nics": {"a": {**USER, "mac": "52:54:00:00:00:02"}}},
        CARDS,
        ("52:54:00:00:00:01", "52:54:00:00:00:02"),
    ),
    "forwards.**": Proof(
        {"nics": {"lan": USER}},
        {"nics": {"lan": USER}, "forwards": {"web": {"listen": f"127.0.0.1:{PORT}", "port": 80, "protocol": "tcp"}}},
        _through,
        ("closed", "Linux"),
    ),
    "devices.*": Proof(
        {}, {"devices": {"a": {"emulate": {"driver": "usb-tablet"}}}}, PRODUCTS, ("", "QEMU USB Tablet")
    ),
    "devices.*.*.**": Proof(
        {"devices": {"a": {"emulate": {"driver": "usb-tablet"}}}},
        {"devices": {"a": {"emulate": {"driver": "usb-mouse"}}}},
        PRODUCTS,
        ("QEMU USB Tablet", "QEMU USB Mouse"),
    ),
    "shares.*": Proof({}, _share("one"), "cat /mnt/data/which 2>/dev/null || echo none", ("none", "one")),
    "shares.*.*": Proof(_share("one"), _share("two"), "cat /mnt/data/which", ("one", "two")),
    "cpus.count": Proof({}, {"cpus": {"count": 3, "max": 3}}, "nproc", ("1", "3")),
    # While it is down.
    "cpus.count (fewer of emulated ones)": Proof(
        {"cpus": {"count": 3, "max": 3}}, {"cpus": {"count": 2, "max": 3}}, "nproc", ("3", "2"), effect=Effect.RESTART
    ),
    "cpus.max": Proof({}, {"cpus": {"count": 1, "max": 4}}, "cat /sys/devices/system/cpu/possible", ("0-2", "0-3")),
    "memory.size (beyond its limits)": Proof(
        {"memory": {"size": 256 * MIB}},
        {"memory": {"size": 320 * MIB}},
        GREW % 240000,
        ("less", "more"),
        effect=Effect.RESTART,
    ),
    "memory.max": Proof({}, {"memory": {"size": 256 * MIB, "max": 768 * MIB}}, REGION, ("0x10000000", "0x20000000")),
    "machine": Proof(
        {}, {"machine": "pc-q35-7.0"}, "cat /sys/class/dmi/id/product_version", ("pc-q35-7.2", "pc-q35-7.0")
    ),
    "cpuModel": Proof(
        {},
        {"cpuModel": "qemu64"},
        "sed -n 's/^model name.*: //p' /proc/cpuinfo",
        ("QEMU TCG CPU version 2.5+", "QEMU Virtual CPU version 2.5+"),
    ),
    "accelerator": Proof({"accelerator": "auto"}, {}, "dmesg | grep -c KVM; true", ("0", "0")),
    "cloudInit.**": Proof(_seed("one"), _seed("two"), TOLD, ("one", "two")),
    "boot.commandLine": Proof(
        _booted(), _booted(line=f"{LINE} quite.another"), "grep -c quite.another /proc/cmdline; true", ("0", "1")
    ),
    "boot.kernel": Proof(
        _booted(), _booted(kernel="kernel"), "cat /sys/kernel/boot_params/version", ("0x020c", "0x020f")
    ),
    "boot.initrd": Proof(_booted(), _booted(initrd="initrd.more"), WHICH, ("none", "more")),
    "guestAgent": Proof(
        CONSOLE,
        {**CONSOLE, "guestAgent": False},
        "[ -e /dev/virtio-ports/org.qemu.guest_agent.0 ]; echo $?",
        ("0", "1"),
        console=True,
    ),
    "metadata.name": Proof({}, {}, _identity, ("old", "new"), name=("old", "new")),
    "firmware": Proof({**UEFI, "firmware": "bios"}, UEFI, "[ -d /sys/firmware/efi ]; echo $?", ("1", "0")),
    "tpm": Proof(
        UEFI, {**UEFI, "tpm": True}, "cat /sys/class/tpm/tpm0/tpm_version_major 2>/dev/null || echo none", ("none", "2")
    ),
    # From nothing again.
    "disks.*.format": Proof(
        {"disks": {**OWN, "data": OWN["own"]}},
        {"disks": {**OWN, "data": {**OWN["own"], "format": "qcow2"}}},
        SIZE,
        ("2048", "2048"),
    ),
    "disks.*.image.** (to one without)": Proof(
        {"disks": {**OWN, "data": {**OWN["own"], "format": "qcow2"}}, "imagePolicy": "follow"},
        {"disks": {**OWN, "data": _from("one")}, "imagePolicy": "follow"},
        "text data",
        ("", "one"),
        (_golden, _golden),
    ),
    "disks.*.image.**": Proof(
        {"disks": {**OWN, "data": _from("one")}, "imagePolicy": "follow"},
        {"disks": {**OWN, "data": _from("two")}, "imagePolicy": "follow"},
        "text data",
        ("one", "two"),
        (_golden, _golden),
    ),
    "boot.image.** (in place of files)": Proof(
        lambda lab: {"disks": OWN, "imagePolicy": "follow", **_booted(initrd="initrd.more")(lab)},
        {"disks": OWN, "imagePolicy": "follow"},
        WHICH,
        ("more", "none"),
    ),
    "boot.image.**": Proof(
        {"disks": OWN, "imagePolicy": "follow"},
        {"disks": OWN, "imagePolicy": "follow", "boot": SECOND},
        WHICH,
        ("none", "second"),
        (_second(), _second()),
    ),
}
DISK: Mapping[str, Proof] = {
    "size": Proof(_attached(), _attached(), SIZE, ("2048", "4096"), (_disk(), _disk(size=2 * MIB))),
    "size (smaller)": Proof(
        _attached(), _attached(), SIZE, ("4096", "4096"), (_disk(size=2 * MIB), _disk()), effect=Effect.IMPOSSIBLE
    ),
    "readOnly": Proof(
        _attached(),
        _attached(readOnly=True),
        READ_ONLY,
        ("0", "1"),
        (_disk(size=2 * MIB), _disk(size=2 * MIB, readOnly=True)),
    ),
    "format": Proof(
        _attached(), _attached(), SIZE, ("4096", "4096"), (_disk(size=2 * MIB), _disk(size=2 * MIB, format="qcow2"))
    ),
    "path": Proof(
        _attached(), _attached(), SIZE, ("4096", "4096"), (_disk(size=2 * MIB), _disk(size=2 * MIB, path="/none"))
    ),
    "mount.**": Proof(
        _attached(),
        _attached(mount="/data"),
        MOUNTED,
        ("0", "1"),
        (_disk(size=2 * MIB), _disk(size=2 * MIB, mount={"path": "/data"})),
    ),
}
IMAGE: Mapping[str, Proof] = {
    "source.**": Proof({"boot": SECOND}, {"boot": SECOND}, WHICH, ("second", "second"), (_second(), _second("third"))),
    "identity": Proof(
        {"boot": SECOND}, {"boot": SECOND}, WHICH, ("second", "second"), (_second(), _second("third", "f" * 64))
    ),
}
PROOFS: Mapping[str, Mapping[str, Proof]] = {"VirtualMachine": MACHINE, "Disk": DISK, "Image": IMAGE}
NOT_SHOWN: Mapping[str, Mapping[str, str]] = {
    "VirtualMachine": {
        **dict.fromkeys(
            ("boot", "disks", "nics", "devices", "shares"), "it is compared part by part, and never differs as a whole"
        ),
        "lifetime": "nothing happens to the guest: what it leads to is shown in tests/e2e/test_lifetime.py",
        "lxd": "it takes a guest with an LXD in it, which this one is not",
    },
    "Image": {"type": "an image of another type belongs to another backend, with a guest that cannot run here"},
}


def _row(key: str) -> str:
    return key.partition(" (")[0]


@pytest.fixture(scope="module")
def machine(images: Path) -> Iterator[Lab]:
    """The guest that is changed over and over."""
    with lab_in(images) as lab:
        lab.timeout = 160.0  # UEFI takes its time where it is emulated
        yield lab
        lab.delete(*(ResourceId("Image", name) for name in ("second", "one", "two")))
        for name in ("one", "two"):
            folder = Path(f"{lab.state}-{name}")
            if folder.exists():
                (folder / "which").unlink()
                folder.rmdir()


@pytest.mark.parametrize("kind", TABLE)
def test_every_row_is_shown_or_it_is_said_why_not(kind: str) -> None:
    shown, not_shown = {_row(key) for key in PROOFS[kind]}, set(NOT_SHOWN.get(kind, {}))
    assert shown | not_shown == set(TABLE[kind])
    assert not shown & not_shown


@pytest.mark.parametrize("section", [row for row, why in NOT_SHOWN["VirtualMachine"].items() if "part by part" in why])
def test_a_section_never_differs_as_a_whole(section: str) -> None:
    filled = {section: {"a": {"b": 1}}}
    for seen, applied in (({}, None), (filled, filled), ({section: {"a": {"b": 2}}}, None)):
        for wanted in (filled, {}):
            assert (section,) not in {change.path for change in diff(wanted, seen, applied)}


SLOW: tuple[str, ...] = (
    "bootOrder",
    "guestAgent",
    "firmware",
    "boot.kernel",
    "boot.initrd",
    "tpm",
    "cpus.max",
    "memory.max",
    "machine",
)
SLOW += ("boot.commandLine", "boot.image.** (in place of files)", "disks.*.format", "disks.*.image.** (to one without)")
SLOW += ("metadata.name", "cpuModel", "accelerator", "cpus.count (fewer of emulated ones)", "cloudInit.**")
SLOW += ("power", "memory.size (beyond its limits)", "disks.*.image.**")
"""Rows that boot several guests one after the other. The restarts that are left show the same machinery at work."""


def _rows() -> Iterator[Any]:
    for kind, proofs in PROOFS.items():
        for key in proofs:
            slow = kind == "VirtualMachine" and key in SLOW
            yield pytest.param(kind, key, marks=[pytest.mark.proof] if slow else [])


@pytest.mark.parametrize(("kind", "key"), [*_rows()])
def test_a_row(machine: Lab, kind: str, key: str) -> None:
    proof, rule = PROOFS[kind][key], TABLE[kind][_row(key)]
    before, after = (proof.wanted(machine, BASE, which) for which in (0, 1))
    boot = _bring_to(machine, proof, before)
    effect = proof.effect or rule.effect
    step = _step(machine, after, ResourceId(kind, proof.name[1] if kind == "VirtualMachine" else IDS[kind]))
    hits = [change for change in step.changes if find_rule(change.path, TABLE[kind]) is rule]
    assert hits and {change.effect for change in hits} == {effect}, step
    assert step.effect is effect, step
    if effect is Effect.REPLACE:
        proof.ask(machine, MARK, 0)
        assert proof.ask(machine, "text own", 0) == "marked"
    if effect is Effect.IMPOSSIBLE:
        held = next(outcome for outcome in machine.apply(*after) if outcome.step.id == step.id)
        assert (step.verb, held.result) == (Verb.HOLD, Result.HELD)
    else:
        machine.converge(*after)
    if not proof.next_boot:
        proof.answers(machine, 1)
    same = proof.ask(machine, BOOT_ID, 1) == boot
    assert same is (effect in (Effect.LIVE, Effect.IMPOSSIBLE))
    if proof.next_boot:
        _boot_again(machine)
        proof.answers(machine, 1)
    if effect is Effect.REPLACE:
        assert proof.ask(machine, "text own", 1) == ""


@pytest.mark.parametrize("power", [Power.STOPPED, Power.PAUSED])
def test_power_that_is_taken_away_is_a_stop(machine: Lab, power: Power) -> None:
    proof = Proof({}, {"power": power.value}, "echo awake", ("awake", None))
    _bring_to(machine, proof, proof.wanted(machine, BASE, 0))
    after = proof.wanted(machine, BASE, 1)
    assert _step(machine, after, after[0].id).effect is Effect.STOP
    machine.converge(*after)
    assert machine.look().power is power


def _bring_to(lab: Lab, proof: Proof, before: Sequence[Desired]) -> str:
    """To where the proof begins; the boot id that it has there."""
    awake = [_awake(want) for want in before]
    lab.converge(*awake)
    boot = proof.ask(lab, BOOT_ID, 0)
    if awake != before:
        lab.converge(*before)
    proof.answers(lab, 0)
    return boot


def _boot_again(lab: Lab) -> None:
    """As the guest would by itself, in the same QEMU."""
    with Monitor(lab.folder().people, "vm") as monitor:
        monitor.execute_and_wait("system_reset", ["RESET"], 60)
    await_ready(Guest(lab.folder(), lab.record(), "vm"), {"guestAgent": True, "timeout": 160}, True, print, 160)


def _awake(want: Desired) -> Desired:
    return replace(want, spec={**want.spec, "power": "running"}) if "power" in want.spec else want


def _step(lab: Lab, wanted: Sequence[Desired], id: ResourceId) -> Step:
    return next(step for step in lab.plan(*wanted)[0].steps if step.id == id)
