"""APPLY, before a guest is stopped or made: whatever can be seen to be impossible is refused while all is still well.

Touches nothing. What only a start can tell is left to the start.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from reconciler.backends.qemu import tpm
from reconciler.backends.qemu.capabilities import capabilities
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.limits import check_memory, check_processors
from reconciler.backends.qemu.machine import Drive, check_machine
from reconciler.backends.qemu.plugging import devices, forwards, shares
from reconciler.backends.qemu.plugging.disks import open_drive
from reconciler.backends.qemu.prepare import Store
from reconciler.backends.qemu.programs import find_firmware, no_firmware
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

_KERNEL_HEAD = 8192
_SETUP_AT = 0x202
_MULTIBOOT = (b"\x02\xb0\xad\x1b", b"\xd6\x50\x52\xe8")


def check_start(spec: Spec, folder: Folder, store: Store, subject: str, tell: Tell) -> None:
    """Refused, naming the field, when a machine of that spec cannot be started here."""
    check_memory(spec, subject)
    check_machine(spec, subject)
    _check_names(spec, subject)
    check_processors(spec, _check_accelerator(spec, folder, store, subject, tell), subject)
    if spec.get("firmware") == "uefi" and find_firmware() is None:
        raise no_firmware(subject)
    _check_kernel(spec, subject)
    _check_plugged(spec, folder, store, subject, start=True)
    _check_tpm(spec, folder, store, subject, tell)


def check_live(spec: Spec, folder: Folder, store: Store, subject: str) -> None:
    """Refused when what is to be plugged into a machine that runs cannot be had here."""
    _check_plugged(spec, folder, store, subject, start=False)


def _check_plugged(spec: Spec, folder: Folder, store: Store, subject: str, start: bool) -> None:
    """What is plugged in the same way with the machine's start as while it runs."""
    _check_cards(spec, subject)
    for name, disk in spec.get("disks", {}).items():
        _check_disk(name, disk, store, subject)
    for name, nic in spec.get("nics", {}).items():
        _check_bridge(name, nic, subject)
    devices.check(spec.get("devices", {}), subject)
    forwards.check(spec, subject)
    shares.check(spec.get("shares", {}), folder, subject, start=start)


def _check_names(spec: Spec, subject: str) -> None:
    known = capabilities()
    _check_name("machine", str(spec.get("machine", "q35")), known.machines, "-machine", subject)
    _check_name("cpuModel", str(spec.get("cpuModel", "max")), known.processors, "-cpu", subject)


def _check_cards(spec: Spec, subject: str) -> None:
    for name, nic in spec.get("nics", {}).items():
        model, known = str(nic.get("model", "virtio-net-pci")), capabilities()
        _check_name(f"nics.{name}.model", model, known.cards, "-device", subject, "network card")


def _check_name(
    field: str, given: str, known: Collection[str], option: str, subject: str, what: str | None = None
) -> None:
    if not known or given in known:
        return
    near = get_close_matches(given, sorted(known), 1)
    meant = f'did you mean "{near[0]}"? ' if near else ""
    hint = f"{meant}`qemu-system-x86_64 {option} help` lists them"
    raise Refused(Problem(f'{field}: QEMU knows no {what or field} "{given}"', subject=subject, hint=hint))


def _check_accelerator(spec: Spec, folder: Folder, store: Store, subject: str, tell: Tell) -> str:
    from reconciler.backends.qemu.accelerator import KVM, choose  # only a start asks for one

    kernel = folder.kernel if folder.kernel.exists() else None
    chosen = choose(str(spec.get("accelerator", "auto")), store.state, subject, tell, kernel)
    if spec.get("cpuModel") == "host" and chosen != KVM:
        hint = 'say "max": everything that the accelerator can do'
        raise Refused(Problem(f'cpuModel: "host" needs KVM, and this VM gets {chosen}', subject=subject, hint=hint))
    return chosen


def _check_kernel(spec: Spec, subject: str) -> None:
    boot = spec.get("boot", {})
    for field in ("kernel", "initrd"):
        if "image" in boot or not boot.get(field):
            continue
        given = Path(str(boot[field]))
        try:
            if not stat.S_ISREG(given.stat().st_mode):
                raise Refused(Problem(f"boot.{field}: {given}: not a regular file", subject=subject))
            with given.open("rb") as file:
                head = file.read(_KERNEL_HEAD)
        except OSError as error:
            raise Refused(Problem(f"boot.{field}: {given}: {error.strerror}", subject=subject)) from error
        if field == "kernel" and not is_kernel(head):
            hint = "it takes a bzImage (vmlinuz) or an uncompressed vmlinux"
            raise Refused(Problem(f"boot.kernel: {given}: not a kernel for this machine", subject=subject, hint=hint))


def is_kernel(head: bytes) -> bool:
    """Whether a file that begins like this is one that QEMU or UEFI boots: Linux, ELF, PE or multiboot."""
    if head[_SETUP_AT : _SETUP_AT + 4] == b"HdrS" or head[:4] == b"\x7fELF" or head[:2] == b"MZ":
        return True
    return any(magic in head for magic in _MULTIBOOT)


def _check_disk(name: str, disk: Spec, store: Store, subject: str) -> None:
    """That a disk which is not the VM's own can be opened the way that the start will open it."""
    read_only = bool(disk.get("readOnly", False))
    if "disk" in disk:
        file, format = store.disks.locate(str(disk["disk"]))
        drive = Drive(name, file, format, read_only)
    elif "path" in disk:
        drive = Drive(name, Path(str(disk["path"])), str(disk.get("format", "qcow2")), read_only, foreign=True)
    else:
        return
    with open_drive(drive, subject):
        pass


def _check_tpm(spec: Spec, folder: Folder, store: Store, subject: str, tell: Tell) -> None:
    """QEMU lays an initrd over what a BIOS with a TPM keeps at the end of memory: the guest loses its ACPI tables."""
    tpm.check(spec, subject)
    if not spec.get("tpm") or spec.get("firmware") == "uefi":
        return
    boot = spec.get("boot", {})
    if "image" in boot:
        image, _ = store.images.get(str(boot["image"]["name"]), subject, tell)
        has_initrd = folder.initrd.exists() or image.initrd is not None
    else:
        has_initrd = bool(boot.get("initrd"))
    if has_initrd:
        what = "tpm: a machine with firmware: bios cannot have it beside a kernel with an initrd"
        raise Refused(Problem(what, subject=subject, hint="say firmware: uefi"))


def _check_bridge(name: str, nic: Spec, subject: str) -> None:
    if nic.get("type") == "bridge" and str(nic.get("bridge")) not in {found for _, found in socket.if_nameindex()}:
        hint = "declare it as a Network, or make it first"
        raise Refused(Problem(f'nics.{name}.bridge: there is no "{nic.get("bridge")}"', subject=subject, hint=hint))
