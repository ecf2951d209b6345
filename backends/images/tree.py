"""APPLY, the files of a guest before they are packed: path → Node, packed as tar.gz or cpio, always to the same bytes.

Sorted entries, one fixed time, everything owned by root.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

EPOCH = 1_577_836_800
"""The time of every packed file: 2020-01-01, so that nobody's clock is before it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A file, folder or symbolic link; mode holds the type bits as in ``stat``."""

    mode: int
    data: bytes = b""


Tree = dict[str, Node]
"""Paths without a leading slash."""


def file(data: bytes, mode: int = 0o644) -> Node:
    """A regular file."""
    return Node(stat.S_IFREG | mode, data)


def folder(mode: int = 0o755) -> Node:
    """A folder."""
    return Node(stat.S_IFDIR | mode)


def link(target: str) -> Node:
    """A symbolic link."""
    return Node(stat.S_IFLNK | 0o777, target.encode())


def with_parents(tree: Tree) -> Tree:
    """The same tree, sorted, with every folder that a path passes through."""
    whole = dict(tree)
    for path in tree:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                whole.setdefault(str(parent), folder())
    return dict(sorted(whole.items()))


def write_tarball(path: Path, tree: Tree) -> None:
    """Pack as ``.tar.gz``."""
    with (
        path.open("wb") as target,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=target, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, node in with_parents(tree).items():
            archive.addfile(_tar_entry(name, node), io.BytesIO(node.data))


def _tar_entry(name: str, node: Node) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = stat.S_IMODE(node.mode), EPOCH
    entry.uname = entry.gname = "root"
    if stat.S_ISDIR(node.mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(node.mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, node.data.decode()
    else:
        entry.size = len(node.data)
    return entry


def write_cpio(target: BinaryIO, tree: Tree) -> None:
    """Append as an uncompressed ``newc`` archive, which the kernel unpacks as initramfs.

    Uncompressed on purpose: an emulated CPU takes longer to inflate than QEMU takes to copy. Several archives may
    follow each other in one file; each is padded to 512 bytes.
    """
    written = 0
    for number, (name, node) in enumerate(with_parents(tree).items(), start=1):
        written += _cpio_entry(target, number, name, node)
    written += _cpio_entry(target, 0, "TRAILER!!!", Node(0))
    target.write(b"\0" * (-written % 512))


def _cpio_entry(target: BinaryIO, number: int, name: str, node: Node) -> int:
    links = 2 if stat.S_ISDIR(node.mode) else 1
    encoded = name.encode() + b"\0"
    fields = (number, node.mode, 0, 0, links, EPOCH, len(node.data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    parts = (head, b"\0" * (-len(head) % 4), node.data, b"\0" * (-len(node.data) % 4))
    return sum(target.write(part) for part in parts)
