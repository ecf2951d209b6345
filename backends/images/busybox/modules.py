"""APPLY, recipe ``busybox`` for a VM: the kernel modules that a QEMU guest may meet, with all that they depend on.

What depends on what, and which hardware they serve, they say themselves; ``depmod`` is not needed.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reconciler.backends.images import elf
from reconciler.backends.images.tree import Tree, file
from reconciler.problems import Problem, Refused

WANTED = (
    ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console", "virtio_rng"),
    ("virtio_balloon", "virtio_mem", "virtio_input", "vmw_vsock_virtio_transport", "qemu_fw_cfg"),
    ("pvpanic_pci", "pvpanic_mmio", "i6300esb", "button", "evdev", "e1000", "e1000e"),
    ("ext4", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859_1", "squashfs", "erofs", "overlay"),
    ("9p", "9pnet_virtio", "virtiofs", "dm_mod", "dm_verity", "loop", "crc32c_generic", "crc32c_intel"),
    ("sd_mod", "sr_mod", "ahci", "xhci_pci", "usb_storage", "uas", "usbhid", "hid_generic"),
    ("cdc_acm", "cdc_ether", "usbserial", "ftdi_sio", "pl2303", "cp210x"),
)
"""By name; what a kernel has built in, or not at all, is passed over."""

_MODULE = re.compile(r"(?:usr/)?lib/modules/[^/]+/(kernel/.+/([^/]+)\.ko)(\.xz|\.gz|\.zst)?")


@dataclass(frozen=True, slots=True)
class Module:
    """path: below ``lib/modules/<release>``, uncompressed; needs: names of other modules; aliases: what it serves."""

    name: str
    path: str
    needs: tuple[str, ...]
    aliases: tuple[str, ...]


class Modules(Protocol):
    """Where modules are read from."""

    def names(self) -> Iterable[str]:
        """Every file there is, as ``lib/modules/…``."""

    def read(self, name: str) -> bytes:
        """One of them, as it is."""


class PackageModules:
    """Modules in a kernel package."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {entry.name.removeprefix("./"): entry for entry in archive if entry.isreg()}

    def names(self) -> Iterable[str]:
        return self._members

    def read(self, name: str) -> bytes:
        file = self._archive.extractfile(self._members[name])
        return file.read() if file else b""

    def read_one(self, pattern: re.Pattern[str]) -> bytes | None:
        """The first file whose whole name matches."""
        return next((self.read(name) for name in self._members if pattern.fullmatch(name)), None)


class FolderModules:
    """Modules in a folder such as ``/lib/modules/6.1.0-56-amd64``."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "kernel").is_dir():
            hint = "name the folder of one kernel release, such as /lib/modules/6.1.0-56-amd64"
            raise Refused(Problem(f"modules: {folder}: expected a folder with kernel/ in it", hint=hint))
        self._folder = folder

    def names(self) -> Iterator[str]:
        for path in sorted(self._folder.glob("kernel/**/*.ko*")):
            yield f"lib/modules/{self._folder.name}/{path.relative_to(self._folder)}"

    def read(self, name: str) -> bytes:
        return (self._folder / name.split("/", 3)[3]).read_bytes()


def module_tree(source: Modules, release: str, wanted: Iterable[Iterable[str]] = WANTED) -> Tree:
    """The wanted modules and what they need under ``lib/modules/<release>``, with the indexes that modprobe reads."""
    found = {
        name: (path, *match.group(1, 3))
        for path in source.names()
        if (match := _MODULE.fullmatch(path))
        for name in [_plain(match[2])]
    }
    modules: dict[str, Module] = {}
    tree: Tree = {}
    queue = [name for names in wanted for name in names]
    while queue:
        name = queue.pop()
        if name in modules or name not in found:
            continue
        path, place, suffix = found[name]
        data = _unpacked(source.read(path), suffix, path)
        modules[name] = _module(name, place, data)
        tree[f"lib/modules/{release}/{place}"] = file(data)
        queue += modules[name].needs
    tree |= {f"lib/modules/{release}/{name}": file(text.encode()) for name, text in _indexes(modules).items()}
    return tree


def _plain(name: str) -> str:
    """The kernel takes ``-`` and ``_`` in names for the same."""
    return name.strip().replace("-", "_")


def _module(name: str, path: str, data: bytes) -> Module:
    info = elf.module_info(data)
    needs = [_plain(one) for key, value in info if key == "depends" for one in value.split(",") if one]
    return Module(name, path, tuple(needs), tuple(value for key, value in info if key == "alias"))


def _indexes(modules: dict[str, Module]) -> dict[str, str]:
    ordered = sorted(modules.values(), key=lambda module: module.path)
    needs = [
        f"{module.path}: {' '.join(modules[name].path for name in _all_needs(module, modules))}".rstrip()
        for module in ordered
    ]
    aliases = [f"alias {alias} {module.name}" for module in ordered for alias in module.aliases]
    return {"modules.dep": "\n".join(needs) + "\n", "modules.alias": "\n".join(aliases) + "\n", "modules.symbols": ""}


def _all_needs(module: Module, modules: dict[str, Module]) -> list[str]:
    """Everything it depends on, at any depth; modprobe loads from the end of the list."""
    order: list[str] = []
    for name in module.needs:
        if name in modules:
            for one in (name, *_all_needs(modules[name], modules)):
                if one in order:
                    order.remove(one)
                order.append(one)
    return order


def _unpacked(data: bytes, suffix: str | None, name: str) -> bytes:
    if suffix == ".xz":
        return lzma.decompress(data)
    if suffix == ".gz":
        return gzip.decompress(data)
    if suffix == ".zst":
        if shutil.which("zstd") is None:
            raise Refused(Problem(f"{name}: packed with zstd, which is not installed", hint="apt-get install -y zstd"))
        return subprocess.run(("zstd", "-dcq"), input=data, capture_output=True, check=True).stdout
    return data
