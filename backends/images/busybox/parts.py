"""APPLY, recipe ``busybox`` for a VM, the parts that come from elsewhere: kernel, modules, programs.

From the distribution's packages, unpacked and not installed, or from the paths that the manifest names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from reconciler.backends.images.busybox.kernel import release_of, unpacked
from reconciler.backends.images.busybox.modules import FolderModules, PackageModules, module_tree
from reconciler.backends.images.busybox.programs import program_files
from reconciler.backends.images.cache import Facts
from reconciler.backends.images.packages import Packages, contents, workshop
from reconciler.backends.images.tree import Tree, write_cpio
from reconciler.model import Json
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

METAPACKAGE = "linux-image-amd64"
"""Depends on the newest kernel of Debian."""


def build_parts(recipe: Mapping[str, Json], work: Path, tell: Tell) -> Facts:
    """Fill ``work`` with ``kernel``, ``kernel.elf`` (where it can be unpacked) and ``parts.cpio``."""
    with workshop(work, tell) as packages:
        tree = _own_kernel(recipe, work) if "kernel" in recipe else packaged_kernel(packages, work, tell)
        tree |= program_files(packages, tell)
    with (work / "parts.cpio").open("wb") as target:
        write_cpio(target, tree)
    return {}


def _own_kernel(recipe: Mapping[str, Json], work: Path) -> Tree:
    try:
        image = Path(recipe["kernel"]).read_bytes()
    except OSError as error:
        raise Refused(Problem(f"kernel: {recipe['kernel']}: {error.strerror}")) from error
    release = _keep_kernel(image, work)
    if release is None:
        raise Refused(Problem(f"kernel: {recipe['kernel']}: not a Linux kernel for x86 (bzImage)"))
    return module_tree(FolderModules(Path(recipe["modules"])), release) if "modules" in recipe else {}


def packaged_kernel(packages: Packages, work: Path, tell: Tell) -> Tree:
    """The distribution's own: ``kernel`` and ``kernel.elf`` into ``work``, its wanted modules as a tree."""
    package = packages.download(kernel_package(packages))
    tell(f"unpacking {package.name}")
    with contents(package) as archive:
        modules = PackageModules(archive)
        image = modules.read_one(re.compile(r"boot/vmlinuz-.+"))
        release = _keep_kernel(image, work) if image else None
        if release is None:
            raise Refused(
                Problem(f"{package.name}: no kernel in it", hint="name a kernel yourself (kernel:, modules:)")
            )
        return module_tree(modules, release)


def _keep_kernel(image: bytes, work: Path) -> str | None:
    """Write it as it is, and unpacked where that can be done; its release, None when it is no kernel."""
    release = release_of(image)
    if release is not None:
        (work / "kernel").write_bytes(image)
        if (inner := unpacked(image)) is not None:
            (work / "kernel.elf").write_bytes(inner)
    return release


def kernel_package(packages: Packages) -> str:
    """The name of the package that has it; Refused when apt knows none."""
    for name in packages.depends(METAPACKAGE):
        if re.fullmatch(r"linux-image-[\w.+-]*\d[\w.+-]*", name):
            return name
    hint = "apt-get update; or name a kernel yourself (kernel:, modules:)"
    raise Refused(Problem(f"no kernel package is known to apt (tried {METAPACKAGE})", hint=hint))
