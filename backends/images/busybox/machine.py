"""APPLY, recipe ``busybox`` for a VM: a kernel, and an initramfs that is the whole guest.

The parts that cost a download (kernel, modules, programs) are a cache entry of their own; the initramfs of one image
is those parts with the image's own files behind them: the kernel unpacks one archive after the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reconciler.backends.images.busybox import recipe_digest, script
from reconciler.backends.images.busybox.parts import build_parts
from reconciler.backends.images.busybox.userland import check_fields, extra_files, find_busybox, userland, with_extra
from reconciler.backends.images.cache import Cache, Entry, Facts
from reconciler.backends.images.image import stamp
from reconciler.backends.images.tree import Tree, file, folder, link, write_cpio
from reconciler.model import Json, Spec
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

FIELDS = frozenset({"recipe", "files", "kernel", "modules"})
COMMAND_LINE = "console=ttyS0 panic=-1 quiet cryptomgr.notests no_timer_check"
"""The last: under emulation on a busy host the kernel counts too few ticks, takes its timer for broken, and panics."""
SCRIPTS = {
    "init": "machine-init.sh",
    "sbin/shutdown": "shutdown.sh",
    "lib/reconciler/uevent": "machine-uevent.sh",
    "lib/reconciler/agent": "agent.sh",
    "etc/acpi/PWRF/00000080": "shutdown.sh",
}


def builder(cache: Cache) -> Callable[[Spec, Path, Tell], Facts]:
    """The builder, which keeps the parts in the same cache."""

    def build(source: Spec, work: Path, tell: Tell) -> Facts:
        recipe = source["build"]
        check_fields(recipe, FIELDS)
        if "modules" in recipe and "kernel" not in recipe:
            raise Refused(Problem("modules: needs kernel: beside it", hint="modules fit one kernel only"))
        extra = extra_files(recipe)
        parts = cache.obtain(_key(recipe), lambda place: build_parts(recipe, place, tell), tell)
        tell("making a busybox initramfs")
        busybox, applets = find_busybox(work, tell)
        kernels = [name for name in ("kernel", "kernel.elf") if (parts.folder / name).exists()]
        for name in kernels:
            os.link(parts.folder / name, work / name)
        _write_initrd(work / "initrd", parts, with_extra(_root(busybox, applets), extra))
        return {
            "kernel": "kernel",
            "kernel_elf": kernels[1] if len(kernels) > 1 else None,
            "initrd": "initrd",
            "command_line": COMMAND_LINE,
            "sha256": _digest(work, ("kernel", "initrd")),
            "parts": [parts.key],
        }

    return build


def _key(recipe: Mapping[str, Json]) -> str:
    given = {field: [recipe[field], stamp(recipe[field])] for field in ("kernel", "modules") if field in recipe}
    return f"parts-{hashlib.sha256(json.dumps([recipe_digest(), given], sort_keys=True).encode()).hexdigest()}"


def _root(busybox: bytes, applets: list[str]) -> Tree:
    root = userland(busybox, applets)
    root |= {path: file(script(name), 0o755) for path, name in SCRIPTS.items()}
    root |= {"sbin/init": link("../init"), "run": folder()}
    return root


def _write_initrd(path: Path, parts: Entry, root: Tree) -> None:
    with path.open("wb") as target, (parts.folder / "parts.cpio").open("rb") as before:
        shutil.copyfileobj(before, target)
        write_cpio(target, root)


def _digest(work: Path, names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update((work / name).read_bytes())
    return digest.hexdigest()
