"""APPLY, the files of a direct kernel boot. QEMU opens them again by its descriptor, as its own user: they must let it.

An image's kernel is kept once, readable, below ``<state>/boot`` (a folder that only we may enter), and every VM that
boots it has a link of its own: the image may go, the VM stays. What no VM links to any more is swept away.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from reconciler.backends.qemu.folders import locked
from reconciler.paths import private_dir

_PATIENCE = 60.0


def share(state: Path, key: str, parts: Iterable[tuple[Path, Path]]) -> None:
    """Make every target of (source, target) a link to the one readable copy. key: the image's; same key, same files."""
    from reconciler.backends.images import checksums  # with it comes all that makes images

    store = state / "boot"
    with locked(store, "the kernels of our VMs", _PATIENCE):
        for source, target in parts:
            kept = store / f"{key}.{source.name}"
            if not kept.exists() or checksums.of(kept) != checksums.of(source):
                copy(source, kept)
            private_dir(target.parent)
            target.unlink(missing_ok=True)
            os.link(kept, target)


def sweep(state: Path) -> None:
    """Forget the copies that no VM uses."""
    store = state / "boot"
    if not store.is_dir():
        return
    with locked(store, "the kernels of our VMs", _PATIENCE):
        for kept in store.iterdir():
            if kept.stat().st_nlink == 1:
                kept.unlink()


def copy(source: Path, target: Path, mode: int = 0o444) -> None:
    """Whole or not at all."""
    if source.exists() and not source.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(source))
    private_dir(target.parent)
    making = target.with_name(f".{target.name}.making")
    making.unlink(missing_ok=True)
    shutil.copyfile(source, making)
    making.chmod(mode)
    making.replace(target)
