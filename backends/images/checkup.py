"""DOCTOR: what the images need of this host: busybox, the package tools, room for the state folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from reconciler.backends.images import elf
from reconciler.backends.images.busybox.userland import HOST_BUSYBOX, PACKAGE
from reconciler.backends.images.cache import Cache
from reconciler.backends.images.packages import run
from reconciler.ports import Check, Settings, Tell
from reconciler.problems import Problem, Refused

ROOM = 2 << 30
"""Bytes that should be free: a kernel package taken apart is half a GiB for a moment, a disk image more."""


def checks(settings: Settings) -> list[Check]:
    """One line each."""
    return [_busybox(), _tools(), *_state(settings.state)]


def _busybox() -> Check:
    for path in HOST_BUSYBOX:
        if path.is_file() and elf.is_static(path.read_bytes()):
            return Check("busybox", True, f"{path}, static")
    hint = f"apt-get install -y {PACKAGE}"
    if shutil.which("apt-get"):
        fix = _install if os.geteuid() == 0 else None
        return Check("busybox", None, "not installed; fetched as a package when a recipe needs it", hint, fix)
    return Check("busybox", False, "no static busybox", "the recipe busybox needs one at /bin/busybox")


def _install(tell: Tell) -> None:
    tell(f"installing {PACKAGE}")
    answer = run(("apt-get", "install", "-y", "--no-install-recommends", PACKAGE), Path("/"))
    if answer.returncode:
        raise Refused(Problem(f"{PACKAGE}: cannot be installed", detail=answer.stderr, hint="apt-get update"))


def _tools() -> Check:
    missing = [name for name in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(name) is None]
    if not missing:
        return Check("package tools", True, "apt-get, apt-cache, dpkg-deb")
    hint = "without them, recipe busybox for a VM needs kernel: and modules:"
    return Check("package tools", None, f"no {', '.join(missing)}", hint)


def _state(state: Path) -> Iterator[Check]:
    cache = Cache(state)
    count, size = len(cache.keys()), cache.size()
    yield Check("image cache", True, f"{count} entries, {_mib(size)} in {cache.folder}")
    place = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(place).free
    hint = f"make room below {place}, or move the state with RECONCILER_STATE_DIR"
    yield Check("room for state", free >= ROOM, f"{_mib(free)} free at {place}", hint, facts={"free": free})


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
