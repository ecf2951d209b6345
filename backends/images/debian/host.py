"""APPLY, recipe ``lxd-host``: a VM whose root is read-only and verified block by block, and whose job is to run LXD.

The disk is a squashfs with its dm-verity hash tree behind it; the root hash stands on the kernel's command line, which
comes from us: whatever changes a bit of the disk has to be noticed. Any number of VMs share the one file. What a guest
writes goes to memory, but for what lies on its disk ``data``: that is where LXD keeps everything.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from reconciler.backends.images.busybox import script as busybox_script
from reconciler.backends.images.busybox.machine import COMMAND_LINE
from reconciler.backends.images.busybox.parts import kernel_package, packaged_kernel
from reconciler.backends.images.busybox.programs import program_files
from reconciler.backends.images.busybox.userland import extra_files, find_busybox, userland
from reconciler.backends.images.cache import Facts
from reconciler.backends.images.debian import rootfs, script
from reconciler.backends.images.debian.packages import LXD_HOST
from reconciler.backends.images.packages import Packages, workshop
from reconciler.backends.images.tree import EPOCH, Tree, file, folder, link, write_cpio
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

BLOCK = 4096
_PRESEED = "etc/reconciler/lxd.yaml"
_SUBORDINATES = b"root:1000000:1000000000\nroot:1000:64536\n"
"""Whom containers may be for the VM: nobody that it has, and ordinary users (``raw.idmap``), none of whom it has."""
VERITY = {"usr/sbin/dmsetup": "dmsetup"}
_EXCLUDED = ("boot", "var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man")
_ROOT_HASH = re.compile(r"^Root hash:\s+([0-9a-f]{64})$", re.MULTILINE)


def build(source: Spec, work: Path, tell: Tell) -> Facts:
    """Make the image in ``work``."""
    recipe = source["build"]
    rootfs.check_fields(recipe)
    extra = extra_files(recipe)
    root = work / "root"
    with workshop(work, tell) as packages:
        rootfs.bootstrap(root, recipe, LXD_HOST, _own_files() | extra, tell)
        parts = packaged_kernel(packages, work, tell)
        _all_modules(packages, root)
        parts |= program_files(packages, tell, VERITY)
    _write_initrd(work, parts, tell)
    tell("packing the read-only root")
    blocks = pack(root, work / "root.img")
    shutil.rmtree(root)
    hash = verity(work / "root.img", blocks)
    size = (work / "root.img").stat().st_size
    return {
        "kernel": "kernel",
        "kernel_elf": "kernel.elf" if (work / "kernel.elf").exists() else None,
        "initrd": "initrd",
        "command_line": f"{COMMAND_LINE} reconciler.verity={blocks}:{hash}",
        "disk": "root.img",
        "disk_format": "raw",
        "virtual_size": size,
        "read_only": True,
        "sha256": _digest(work / "root.img"),
    }


def _own_files() -> Tree:
    tree: Tree = {
        "sbin/init": file(script("host-init.sh"), 0o755),
        "sbin/shutdown": file(busybox_script("shutdown.sh"), 0o755),
        "lib/reconciler/common.sh": file(busybox_script("common.sh")),
        "lib/reconciler/console": file(busybox_script("console.sh"), 0o755),
        "lib/reconciler/uevent": file(busybox_script("machine-uevent.sh"), 0o755),
        "lib/reconciler/agent": file(busybox_script("agent.sh"), 0o755),
        "usr/share/udhcpc/default.script": file(busybox_script("dhcp.sh"), 0o755),
        "etc/acpi/PWRF/00000080": file(busybox_script("shutdown.sh"), 0o755),
        "etc/hostname": file(b"lxd-host\n"),
        "etc/resolv.conf": file(b""),
        "etc/subuid": file(_SUBORDINATES),
        "etc/subgid": file(_SUBORDINATES),
        _PRESEED: file(script("lxd.yaml")),
    }
    # Debian's shell is dash; ours are written for busybox, whose applets they use.
    ours = [path for path, node in tree.items() if node.data.startswith(b"#!/bin/sh\n")]
    tree |= {path: file(tree[path].data.replace(b"#!/bin/sh\n", b"#!/bin/busybox sh\n", 1), 0o755) for path in ours}
    return {f"usr/{path}" if path.split("/")[0] in ("sbin", "lib") else path: node for path, node in tree.items()}


def _all_modules(packages: Packages, root: Path) -> None:
    """Every module of the kernel: LXD asks for many, and USB devices for the rest."""
    package = packages.download(kernel_package(packages))
    place = packages.folder / "kernel"
    rootfs.tool(["dpkg-deb", "-x", os.fspath(package), os.fspath(place)], package.name)
    (release,) = (place / "lib/modules").iterdir()
    target = root / "usr/lib/modules"
    target.mkdir(parents=True, exist_ok=True)
    release.rename(target / release.name)
    rootfs.tool(["depmod", "-b", os.fspath(root), release.name], "kernel modules")


def _write_initrd(work: Path, parts: Tree, tell: Tell) -> None:
    """A busybox that sets up the verified root, and nothing else."""
    busybox, applets = find_busybox(work, tell)
    tree = userland(busybox, applets) | parts
    tree |= {"init": file(script("verified-init.sh"), 0o755), "sbin/init": link("../init"), "run": folder()}
    with (work / "initrd").open("wb") as target:
        write_cpio(target, tree)


def pack(root: Path, target: Path) -> int:
    """The squashfs, filled up to a whole block; how many blocks it has."""
    command = ["mksquashfs", os.fspath(root), os.fspath(target), "-comp", "zstd", "-Xcompression-level", "3"]
    command += ["-noappend", "-quiet", "-no-progress", "-mkfs-time", str(EPOCH), "-wildcards"]
    rootfs.tool([*command, "-e", *(f"{path}/*" for path in _EXCLUDED)], "the read-only root")
    blocks = -(-target.stat().st_size // BLOCK)
    os.truncate(target, blocks * BLOCK)
    return blocks


def verity(image: Path, blocks: int) -> str:
    """Append the hash tree; the root hash."""
    command = ["veritysetup", "format", "--no-superblock", "--salt=-", f"--data-blocks={blocks}"]
    command += [f"--hash-offset={blocks * BLOCK}", os.fspath(image), os.fspath(image)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    except FileNotFoundError as error:
        hint = "apt-get install cryptsetup-bin, or `reconciler doctor --fix`"
        raise Refused(Problem("recipe lxd-host: veritysetup is not installed", hint=hint)) from error
    found = _ROOT_HASH.search(done.stdout)
    if done.returncode or found is None:
        raise Refused(Problem("recipe lxd-host: veritysetup failed", detail=done.stderr or None))
    return found[1]


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
