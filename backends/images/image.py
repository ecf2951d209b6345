"""APPLY, the words of images: what a finished image is, and the key under which one source's image is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.images import busybox
from reconciler.model import Spec
from reconciler.problems import Problem, Refused

CONTAINER = "container"
MACHINE = "virtual-machine"


@dataclass(frozen=True, slots=True)
class ContainerImage:
    """An image that LXD can import.

    key:         name of the cache entry; give it to ``drop``
    metadata:    the unified tarball, or the metadata tarball of a split image
    rootfs:      None for a unified tarball, else the second file of a split image
    fingerprint: what LXD will call it: sha256 of the file, or of both files one after the other
    size:        bytes of both files
    """

    key: str
    metadata: Path
    rootfs: Path | None
    fingerprint: str
    size: int


@dataclass(frozen=True, slots=True)
class MachineImage:
    """An image that QEMU can boot: a kernel with its initramfs, or a disk to put an overlay on.

    folder:       the cache entry; never written in by others
    kernel_elf:   the same kernel unpacked: boots in half the time with firmware ``bios``, and with no other
    command_line: for the kernel; empty for a disk
    disk_format:  ``raw`` or ``qcow2``, as the header says
    virtual_size: bytes that the guest sees of the disk
    sha256:       of the disk, or of kernel and initrd one after the other
    read_only:    the disk is used as it is, by any number of guests, and never written to
    """

    key: str
    folder: Path
    kernel: Path | None
    kernel_elf: Path | None
    initrd: Path | None
    command_line: str
    disk: Path | None
    disk_format: str | None
    virtual_size: int | None
    sha256: str
    read_only: bool = False


def key_of(type: str, source: Spec) -> str:
    """The cache key of what ``source`` describes for ``container`` or ``virtual-machine``.

    Files that the source only names are told apart by size and time of change, unless it brings a ``stamp`` itself.
    Raises Refused when such a file is missing.
    """
    text = json.dumps([type, source, *_stamps(source)], sort_keys=True)
    return f"{type}-{hashlib.sha256(text.encode()).hexdigest()}"


def _stamps(source: Spec) -> list[object]:
    build = source.get("build")
    if build is not None:
        named = [build[field] for field in ("kernel", "modules") if field in build]
        return [_digest_of(str(build.get("recipe"))), *map(stamp, named)]
    named = ["file"] if "stamp" not in source else []
    return [stamp(source[field]) for field in (*named, "rootfs") if field in source]


def _digest_of(recipe: str) -> str:
    if recipe == "busybox":
        return busybox.recipe_digest()
    from reconciler.backends.images import debian

    return debian.recipe_digest()


def stamp(path: str) -> list[int]:
    """Changes whenever the file does. Raises Refused when there is no such file."""
    try:
        found = Path(path).stat()
    except OSError as error:
        raise Refused(
            Problem(f"{path}: {error.strerror}", hint="name a file of this host by its absolute path")
        ) from error
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]
