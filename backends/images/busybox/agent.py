"""APPLY, recipe ``busybox`` for a VM: the QEMU guest agent with the libraries it is linked to.

The host's own if it has one, else that of the distribution's package; libraries likewise, one by one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from reconciler.backends.images import elf
from reconciler.backends.images.packages import Packages, read
from reconciler.backends.images.tree import Tree, file
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

PACKAGE = "qemu-guest-agent"
PROGRAM = "usr/sbin/qemu-ga"
LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64")
LIBRARY_TARGET = "lib/x86_64-linux-gnu"


def agent_files(packages: Packages, tell: Tell) -> Tree:
    """The agent and all that it loads; empty, and said so, where there is no way to get one."""
    program = _on_host(PROGRAM)
    if program is None and shutil.which("apt-get") is None:
        tell("no guest agent: this host has none, and no apt-get to fetch one")
        return {}
    program = program or _packaged(packages, PACKAGE, PROGRAM)
    tree: Tree = {PROGRAM: file(program, 0o755)}
    loader = elf.interpreter(program)
    if loader is None:
        return tree
    queue = [Path(loader).name, *elf.needed(program)]
    while queue:
        name = queue.pop()
        path = loader.lstrip("/") if name == Path(loader).name else f"{LIBRARY_TARGET}/{name}"
        if path not in tree:
            data = _library(name, packages)
            tree[path] = file(data, 0o755)
            queue += elf.needed(data)
    return tree


def _on_host(name: str) -> bytes | None:
    path = Path("/", name)
    return path.read_bytes() if path.is_file() else None


def _library(name: str, packages: Packages) -> bytes:
    paths = [f"{folder}/{name}" for folder in LIBRARY_FOLDERS]
    for path in paths:
        if (data := _on_host(path)) is not None:
            return data
    for package in packages.depends(PACKAGE):
        if files := read(packages.download(package), paths):
            return next(iter(files.values()))
    raise Refused(Problem(f"{name}: the guest agent needs it, and neither host nor packages have it"))


def _packaged(packages: Packages, package: str, name: str) -> bytes:
    files = read(packages.download(package), (name,))
    if name not in files:
        raise Refused(Problem(f"package {package}: no {name} in it"))
    return files[name]
