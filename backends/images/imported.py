"""APPLY, sources ``file`` and ``url``: from the bytes that were brought to a finished image, or a clear no."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from reconciler.backends.images import diskfile
from reconciler.backends.images.cache import Facts
from reconciler.backends.images.sources import bring, bring_rootfs
from reconciler.backends.images.tarscan import scan
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

SQUASHFS = b"hsqs"


def container(source: Spec, folder: Path, tell: Tell) -> Facts:
    """A unified tarball, or metadata with a root file system beside it; checked, and named as LXD expects."""
    brought = bring(source, folder, tell)
    rootfs = bring_rootfs(source, folder, tell)
    tell("looking through the image")
    if rootfs is None:
        _whole(brought.path, brought.name)
        return _facts(folder, brought.path.name, None)
    if not scan(brought.path, brought.name, "metadata").metadata:
        raise Refused(Problem(f"{brought.name}: no metadata.yaml in it"))
    if not _is_squashfs(rootfs.path):
        scan(rootfs.path, rootfs.name, "rootfs")
    return _facts(folder, brought.path.name, rootfs.path.name)


def _is_squashfs(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQUASHFS)) == SQUASHFS


def _whole(path: Path, name: str) -> None:
    found = scan(path, name, "unified")
    if not found.metadata:
        hint = "a container image is a tarball of metadata.yaml and rootfs/, or such a metadata with rootfs: beside it"
        raise Refused(Problem(f"{name}: no metadata.yaml in it", hint=hint))
    if not found.rootfs:
        raise Refused(Problem(f"{name}: no rootfs/ in it", hint="name the other half beside it as rootfs:"))


def _facts(folder: Path, metadata: str, rootfs: str | None) -> Facts:
    paths = [folder / name for name in (metadata, rootfs) if name]
    size = sum(path.stat().st_size for path in paths)
    return {"metadata": metadata, "rootfs": rootfs, "fingerprint": _sha256(paths), "size": size}


def machine(source: Spec, folder: Path, tell: Tell) -> Facts:
    """A disk image of its own, raw or qcow2."""
    brought = bring(source, folder, tell)
    disk = diskfile.inspect(brought.path, brought.name, source.get("format"))
    return {
        "disk": brought.path.name,
        "disk_format": disk.format,
        "virtual_size": disk.virtual_size,
        "sha256": brought.sha256,
    }


def _sha256(paths: Iterable[Path]) -> str:
    """Of the files one after the other, as LXD counts a fingerprint."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
