"""A small stand-in for the image of recipe ``lxd-host``: its initramfs, its verified root, and a busybox in it.

Made from the parts of the busybox VM in a second or two, where a Debian with LXD takes minutes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from reconciler.backends.images import cache, key_of
from reconciler.backends.images.busybox import script as busybox_script
from reconciler.backends.images.busybox.machine import COMMAND_LINE, SCRIPTS
from reconciler.backends.images.busybox.programs import program_files
from reconciler.backends.images.busybox.userland import find_busybox, userland
from reconciler.backends.images.debian import host, rootfs, script
from reconciler.backends.images.image import MACHINE
from reconciler.backends.images.packages import workshop
from reconciler.backends.images.tree import file, folder, link, write_cpio

SOURCE = {"build": {"recipe": "lxd-host", "packages": ["stand-in"]}}
"""Never built: it is in the cache."""


def quiet(_: str) -> None:
    """Nobody looks at the progress."""


def put_into_cache(state: Path, images: Path) -> cache.Entry:
    """The entry that the engine takes for ``SOURCE``. images: a store that holds the busybox VM."""
    [parts] = images.glob("entries/parts-*")
    return cache.Cache(state).obtain(key_of(MACHINE, SOURCE), lambda work: _build(work, parts), quiet)


def _build(work: Path, parts: Path) -> cache.Facts:
    for name in ("kernel", "kernel.elf"):
        shutil.copyfile(parts / name, work / name)
    busybox, applets = find_busybox(work, quiet)
    root = work / "root"
    root.mkdir()
    with (parts / "parts.cpio").open("rb") as archive:
        command = ["busybox", "cpio", "-idm", "--quiet"]
        subprocess.run(command, cwd=root, stdin=archive, check=True, stderr=subprocess.DEVNULL)
    inits = {path: file(busybox_script(name), 0o755) for path, name in SCRIPTS.items()}
    rootfs.put(root, userland(busybox, applets) | inits | {"sbin/init": link("../init"), "run": folder()})
    with workshop(work, quiet) as packages:
        dmsetup = program_files(packages, quiet, host.VERITY)
    first = userland(busybox, applets) | dmsetup | {"run": folder()}
    first |= {"init": file(script("verified-init.sh"), 0o755), "sbin/init": link("../init")}
    with (work / "initrd").open("wb") as target, (parts / "parts.cpio").open("rb") as before:
        shutil.copyfileobj(before, target)
        write_cpio(target, first)
    blocks = host.pack(root, work / "root.img")
    shutil.rmtree(root)
    root_hash = host.verity(work / "root.img", blocks)
    return {
        "kernel": "kernel",
        "kernel_elf": "kernel.elf",
        "initrd": "initrd",
        "command_line": f"{COMMAND_LINE} reconciler.verity={blocks}:{root_hash}",
        "disk": "root.img",
        "disk_format": "raw",
        "virtual_size": (work / "root.img").stat().st_size,
        "read_only": True,
        "sha256": hashlib.sha256((work / "root.img").read_bytes()).hexdigest(),
    }


def flip(path: Path, place: int) -> None:
    """Turn one bit of the file over, and leave its times as they are: as a disk does it that fails."""
    times = path.stat()
    with path.open("r+b") as opened:
        opened.seek(place)
        [byte] = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ 1]))
        opened.flush()
        os.fsync(opened.fileno())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
