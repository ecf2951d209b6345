"""APPLY, before a start: every file that the VM stands on is there, its own, and as declared. Idempotent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.backends.qemu import kernels, qemu_img
from reconciler.backends.qemu.disks import Disks, open_disk
from reconciler.backends.qemu.emulation import STICK
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.headers import read_header
from reconciler.backends.qemu.images import Images
from reconciler.backends.qemu.limits import check_memory
from reconciler.backends.qemu.machine import BOOT, Drive, drives_of
from reconciler.backends.qemu.programs import find_firmware
from reconciler.backends.qemu.records import Record, save
from reconciler.backends.qemu.seed import write_seed
from reconciler.model import Json, Spec
from reconciler.paths import private_dir
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

if TYPE_CHECKING:
    from reconciler.backends.images import MachineImage


@dataclass(frozen=True, slots=True)
class Store:
    """The images and disks of one state folder."""

    state: Path
    images: Images
    disks: Disks

    def locate(self, spec: Spec) -> dict[str, tuple[Path, str]]:
        """File and format of every Disk that is attached. Refused when one is not there."""
        names = [str(disk["disk"]) for disk in spec.get("disks", {}).values() if "disk" in disk]
        return {name: self.disks.locate(name) for name in names}


def prepare(folder: Folder, record: Record, spec: Spec, store: Store, tell: Tell) -> tuple[Record, list[Drive]]:
    """The record with the images it now stands on, and the drives in boot order. The caller holds the lock; none lives.

    An image that the guest already stands on is kept, whatever its name stands for by now: another one means replacing.
    """
    check_memory(spec, record.id)
    folder.make()
    record = take_images(folder, record, spec, store, tell)
    _stage_kernel(folder, spec, record.id)
    if "cloudInit" in spec:
        write_seed(folder.seed, spec["cloudInit"], record.birth, folder.name)
    _stage_firmware(folder, spec)
    drives = drives_of(spec, record, folder, store.locate(spec))
    make_disks(drives, record)
    return record, drives


def take_images(folder: Folder, record: Record, spec: Spec, store: Store, tell: Tell) -> Record:
    """The record with the images that the VM stands on, those included that it did not have yet."""
    images = dict(record.images)
    if "image" not in spec.get("boot", {}) and not images.get(BOOT, {}).get("format"):
        images.pop(BOOT, None)  # its kernel gives way to the one that is named, and is taken anew should it come back
    for name, wanted in _wanted_images(spec).items():
        if name not in images:
            tell(f"image {wanted['name']}")
            images[name] = _take_image(folder, name, wanted, record.id, store, tell)
    return save(folder, record.but(images=images)) if images != record.images else record


def make_disks(drives: Iterable[Drive], record: Record) -> None:
    """Disks of the VM's own that are not there yet, or have to grow; what a QEMU holds is for that QEMU to grow."""
    for drive in drives:
        if drive.device not in record.plugged or not drive.file.exists():
            _make_disk(drive, record)


def drop_disks(folder: Folder, record: Record, spec: Spec) -> Record:
    """Delete the disks of the VM's own that it no longer has, or did not have. The caller holds the lock.

    No QEMU has them: none lives, or they are unplugged.

    Comes before the record says that they are not wanted: whoever adds one again after a crash never gets old data.
    """
    _drop_sticks(folder, record, spec)
    if any(str(path).partition(".")[0] == "disks" for path in spec.get("ignore", ())):
        return record  # what disks there are is somebody else's business
    # One that it did not have before is made anew, whatever lies there under that name.
    own = own_disks(spec) & own_disks(record.applied or spec) | {BOOT}
    record = record.but(images={name: facts for name, facts in record.images.items() if name in own})
    if gone := [file for file in folder.disks() if file.name.rpartition(".")[0] not in own]:
        record = save(folder, record)
        for file in gone:
            file.unlink(missing_ok=True)
    return record


def _drop_sticks(folder: Folder, record: Record, spec: Spec) -> None:
    """What is on emulated USB sticks that it no longer has, or did not have."""
    kept = _sticks(spec) & _sticks(record.applied or spec)
    for file in folder.sticks():
        if file.stem not in kept:
            file.unlink(missing_ok=True)


def _sticks(spec: Spec) -> set[str]:
    devices = spec.get("devices", {}).items()
    return {f"device-{name}" for name, one in devices if one.get("emulate", {}).get("driver") == STICK}


def own_disks(spec: Spec) -> set[str]:
    """The names of those whose files belong to the VM."""
    return {name for name, disk in spec.get("disks", {}).items() if "disk" not in disk and "path" not in disk}


def boot_line(spec: Spec, record: Record) -> str:
    """The kernel's command line: the image's own, and what is declared behind it."""
    parts = (record.images.get(BOOT, {}).get("commandLine"), spec.get("boot", {}).get("commandLine"))
    return " ".join(str(part) for part in parts if part)


def is_volatile(record: Record, spec: Spec) -> bool:
    """Whether the guest lives in memory, and forgets whatever was put into it when it goes down."""
    roots = [disk for disk in spec.get("disks", {}).values() if "size" not in disk or "image" in disk]
    boot = record.images.get(BOOT, {})
    return "boot" in spec and not roots and (boot.get("readOnly", False) or not boot.get("format"))


def _wanted_images(spec: Spec) -> dict[str, Spec]:
    wanted = {name: disk["image"] for name, disk in spec.get("disks", {}).items() if "image" in disk}
    if "image" in spec.get("boot", {}):
        wanted[BOOT] = spec["boot"]["image"]
    return wanted


def _take_image(folder: Folder, name: str, wanted: Spec, subject: str, store: Store, tell: Tell) -> Mapping[str, Json]:
    """Make the VM independent of the image: its own copy of the kernel, its own link to the disk."""
    image, applied = store.images.get(str(wanted["name"]), subject, tell)
    facts: dict[str, Json] = {"name": wanted["name"], "identity": applied.get("identity", wanted.get("identity"))}
    if name == BOOT and image.kernel is not None:
        parts = ((image.kernel, folder.kernel), (image.kernel_elf, folder.kernel_elf), (image.initrd, folder.initrd))
        kernels.share(store.state, image.key, [(source, target) for source, target in parts if source is not None])
        facts["commandLine"] = image.command_line
    if image.disk is not None:
        folder.disk(name, "qcow2").unlink(missing_ok=True)  # an overlay on something else, left by a crash
        _link(image.disk, folder.base(name))
        facts |= {"format": image.disk_format, "size": image.virtual_size, "readOnly": image.read_only}
    elif name != BOOT:
        hint = "use it as `boot: {image: …}`"
        raise Refused(Problem(f"disks.{name}.image: {wanted['name']} holds no disk", subject=subject, hint=hint))
    _check_bootable(image, wanted, subject)
    return facts


def _check_bootable(image: MachineImage, wanted: Spec, subject: str) -> None:
    if image.disk is None and image.kernel is None:
        raise Refused(Problem(f"image {wanted['name']} holds neither a kernel nor a disk", subject=subject))


def _stage_kernel(folder: Folder, spec: Spec, subject: str) -> None:
    """A kernel named by its path is copied anew before every start: it is what the manifest says it is, now."""
    boot = spec.get("boot", {})
    if "image" in boot:
        return
    folder.kernel_elf.unlink(missing_ok=True)
    for given, target in ((boot.get("kernel"), folder.kernel), (boot.get("initrd"), folder.initrd)):
        if not given:
            target.unlink(missing_ok=True)
            continue
        try:
            kernels.copy(Path(str(given)), target)
        except OSError as error:
            raise Refused(Problem(f"boot: {given}: {error.strerror}", subject=subject)) from error


def _stage_firmware(folder: Folder, spec: Spec) -> None:
    """UEFI's variables belong to the VM and stay with it; what the firmware package brings is only their beginning."""
    if spec.get("firmware") == "uefi" and not folder.firmware_vars.exists() and (found := find_firmware()):
        kernels.copy(found[1], folder.firmware_vars, 0o600)


def _make_disk(drive: Drive, record: Record) -> None:
    """A disk of the VM's own that is not there yet, or has to grow."""
    if drive.size is None and drive.backing is None:
        return
    if not drive.file.exists():
        least = int(record.images.get(drive.name, {}).get("size") or 0)
        size = drive.size or least
        if size < least:
            what = f"disks.{drive.name}.size: its image is bigger ({least} bytes)"
            raise Refused(Problem(what, subject=record.id, hint="leave size out, or make it bigger"))
        base = (drive.backing, drive.backing_format) if drive.backing is not None else None
        qemu_img.create(drive.file, drive.format, size, record.id, base)
    elif drive.size is not None:
        with open_disk(drive.file, os.O_RDWR, record.id) as handle:
            if read_header(handle).size < drive.size:
                qemu_img.grow(handle, drive.format, drive.size, record.id)


def _link(source: Path, target: Path) -> None:
    """The same file under a name of our own (a copy where the file system cannot): the image may go, the VM stays."""
    private_dir(target.parent)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o600)
