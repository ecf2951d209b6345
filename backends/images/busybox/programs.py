"""APPLY, recipe ``busybox`` for a VM: the programs that busybox lacks, with the libraries that they are linked to.

The QEMU guest agent, and what makes and grows file systems. The host's own where it has them, else those of the
distribution's packages; libraries likewise, one by one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from reconciler.backends.images import elf
from reconciler.backends.images.packages import Packages, read
from reconciler.backends.images.tree import Tree, file, link
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

PROGRAMS: Mapping[str, str] = {
    "usr/sbin/qemu-ga": "qemu-guest-agent",
    "usr/sbin/mke2fs": "e2fsprogs",
    "usr/sbin/e2fsck": "e2fsprogs",
    "usr/sbin/resize2fs": "e2fsprogs",
    "usr/sbin/blkid": "util-linux",
    "usr/sbin/sfdisk": "fdisk",
    "usr/bin/partx": "util-linux",
}
"""Path in the guest → the package that has it."""
LINKS = {"usr/sbin/mkfs.ext4": "mke2fs", "usr/sbin/fsck.ext4": "e2fsck"}
PLACES = ("usr/sbin", "sbin", "usr/bin", "bin")
"""Where hosts and packages have programs."""
LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64")
LIBRARY_TARGET = "lib/x86_64-linux-gnu"


def program_files(packages: Packages, tell: Tell, programs: Mapping[str, str] = PROGRAMS) -> Tree:
    """The programs and all that they load; those left out, and said so, that there is no way to get."""
    tree: Tree = {}
    for target, package in programs.items():
        names = [f"{place}/{Path(target).name}" for place in PLACES]
        program = next((data for name in names if (data := _on_host(name)) is not None), None)
        if program is None and shutil.which("apt-get") is None:
            tell(f"no {Path(target).name}: this host has none, and no apt-get to fetch one")
            continue
        program = program or _packaged(packages, package, names)
        tree[target] = file(program, 0o755)
        _add_libraries(tree, program, packages, package)
    tree |= {path: link(name) for path, name in LINKS.items() if f"usr/sbin/{name}" in tree}
    return tree


def _add_libraries(tree: Tree, program: bytes, packages: Packages, package: str) -> None:
    loader = elf.interpreter(program)
    if loader is None:
        return
    queue = [Path(loader).name, *elf.needed(program)]
    while queue:
        name = queue.pop()
        path = loader.lstrip("/") if name == Path(loader).name else f"{LIBRARY_TARGET}/{name}"
        if path not in tree:
            data = _library(name, packages, package)
            tree[path] = file(data, 0o755)
            queue += elf.needed(data)


def _on_host(name: str) -> bytes | None:
    path = Path("/", name)
    return path.read_bytes() if path.is_file() else None


def _library(name: str, packages: Packages, package: str) -> bytes:
    paths = [f"{folder}/{name}" for folder in LIBRARY_FOLDERS]
    for path in paths:
        if (data := _on_host(path)) is not None:
            return data
    for needed in packages.depends(package):
        if files := read(packages.download(needed), paths):
            return next(iter(files.values()))
    raise Refused(Problem(f"{name}: {package} needs it, and neither host nor packages have it"))


def _packaged(packages: Packages, package: str, names: list[str]) -> bytes:
    files = read(packages.download(package), names)
    if not files:
        raise Refused(Problem(f"package {package}: no {names[0]} in it"))
    return next(iter(files.values()))
