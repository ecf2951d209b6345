"""APPLY, recipe ``debian`` for a VM: a plain Debian with systemd, on a disk of its own, its kernel beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from reconciler.backends.images.busybox.kernel import unpacked
from reconciler.backends.images.busybox.userland import extra_files
from reconciler.backends.images.cache import Facts
from reconciler.backends.images.debian import rootfs
from reconciler.backends.images.debian.packages import MACHINE
from reconciler.backends.images.tree import Tree, file, link
from reconciler.model import Spec
from reconciler.ports import Tell

SIZE = 8 << 30
"""Bytes that the guest sees of its disk; on the host it takes what is in it."""
COMMAND_LINE = "root=LABEL=root rw console=ttyS0 quiet no_timer_check"  # see the busybox machine
_NETWORK = """[Match]
Name=en* eth*

[Network]
DHCP=yes
"""
_FILES: Tree = {
    "etc/hostname": file(b"debian\n"),
    "etc/hosts": file(b"127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    "etc/fstab": file(b"LABEL=root / ext4 defaults,errors=remount-ro 0 1\n"),
    "etc/machine-id": file(b"uninitialized\n"),
    "etc/systemd/network/80-dhcp.network": file(_NETWORK.encode()),
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": link(
        "/lib/systemd/system/systemd-networkd.service"
    ),
}


def build(source: Spec, work: Path, tell: Tell) -> Facts:
    """Make the image in ``work``."""
    recipe = source["build"]
    rootfs.check_fields(recipe)
    extra = extra_files(recipe)
    root = work / "root"
    rootfs.bootstrap(root, recipe, MACHINE, _FILES | extra, tell)
    _take_kernel(root, work)
    tell("writing the disk")
    _write_disk(root, work / "disk.img")
    shutil.rmtree(root)
    return {
        "kernel": "kernel",
        "kernel_elf": "kernel.elf" if (work / "kernel.elf").exists() else None,
        "initrd": "initrd",
        "command_line": COMMAND_LINE,
        "disk": "disk.img",
        "disk_format": "raw",
        "virtual_size": SIZE,
        "sha256": _digest(work / "disk.img"),
    }


def _take_kernel(root: Path, work: Path) -> None:
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    image = kernel.read_bytes()
    (work / "kernel").write_bytes(image)
    if (inner := unpacked(image)) is not None:
        (work / "kernel.elf").write_bytes(inner)
    shutil.copyfile(initrd, work / "initrd")


def _write_disk(root: Path, target: Path) -> None:
    """ext4 straight from the folder: nothing is mounted, no loop device is needed."""
    with target.open("wb") as disk:
        disk.truncate(SIZE)
    options = ["-q", "-F", "-t", "ext4", "-L", "root", "-E", "lazy_itable_init=1,lazy_journal_init=1"]
    rootfs.tool(["mke2fs", *options, "-d", os.fspath(root), os.fspath(target)], "the disk")


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
