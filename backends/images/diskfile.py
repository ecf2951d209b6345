"""APPLY, disk images for VMs: is the file what it is said to be, and does it point at anything outside of itself?

The format is said by the manifest or by the suffix, and never guessed from a header that the guest may once have
written; the header may only contradict.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from reconciler.problems import Problem, Refused

FORMATS = frozenset({"raw", "qcow2"})
SECTOR = 512
HEADER = 1 << 21
"""Bytes that a qcow2 header may take: its largest cluster."""

# (offset, bytes, what it is): a file that begins so is not a raw disk, whatever anybody says.
_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"BZh", "bzip2"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
)
_PACKED = frozenset({"gzip", "xz", "zstd", "bzip2", "zip", "7z"})

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_DATA_FILE_NAME = 0x44415441


@dataclass(frozen=True, slots=True)
class DiskFile:
    """virtual_size: bytes that a guest sees."""

    format: str
    virtual_size: int


def inspect(path: Path, name: str, said: str | None) -> DiskFile:
    """What the disk at ``path`` is; name: as people know it; said: the manifest's ``format``. Raises Refused."""
    format = said or ("qcow2" if PurePosixPath(name).suffix.lower() == ".qcow2" else "raw")
    if format not in FORMATS:
        hint = "convert others with qemu-img convert"
        raise Refused(Problem(f'format: expected raw or qcow2, got "{format}"', hint=hint))
    with path.open("rb") as file:
        header, length = file.read(HEADER), os.fstat(file.fileno()).st_size
        found = _found(header, file, length)
        if format == "raw":
            return DiskFile("raw", _raw(name, found, length))
        if found != "qcow2":
            raise Refused(Problem(f"{name}: expected a qcow2 header, got {found or 'none'}", hint="correct format:"))
        return DiskFile("qcow2", _qcow2(name, header, file, length))


def _found(header: bytes, file: BinaryIO, length: int) -> str | None:
    for offset, magic, format in _MAGICS:
        if header[offset : offset + len(magic)] == magic:
            return format
    file.seek(max(0, length - SECTOR))
    footer = file.read(SECTOR)
    return {b"conectix": "vhd", b"koly": "dmg"}.get(footer[:8]) or ("dmg" if footer[:4] == b"koly" else None)


def _raw(name: str, found: str | None, length: int) -> int:
    if found in _PACKED:
        raise Refused(Problem(f"{name}: packed ({found})", hint="unpack it first; its sha256 changes with it"))
    if found is not None:
        hint = "set format: qcow2" if found == "qcow2" else "convert it with qemu-img convert"
        raise Refused(Problem(f"{name}: expected a raw disk, but its header says {found}", hint=hint))
    if length == 0 or length % SECTOR:
        raise Refused(Problem(f"{name}: expected whole sectors of {SECTOR} bytes, got {length} bytes: truncated?"))
    return length


def _qcow2(name: str, header: bytes, file: BinaryIO, length: int) -> int:
    if len(header) < 104:
        raise Refused(Problem(f"{name}: truncated: {len(header)} bytes"))
    version, backing = struct.unpack_from(">IQ", header, 4)
    bits, size, crypt, l1_count, l1_offset, refcounts = struct.unpack_from(">IQIIQQ", header, 20)
    features, header_length = (struct.unpack_from(">Q", header, 72)[0], struct.unpack_from(">I", header, 100)[0])
    if version == 2:
        features, header_length = 0, 72
    elif version != 3:
        raise Refused(Problem(f"{name}: qcow2 version {version} is not known"))
    _references(name, features, backing, crypt, header, header_length)
    if not 9 <= bits <= 21 or size == 0 or l1_count > 1 << 22:
        raise Refused(Problem(f"{name}: damaged: its qcow2 header makes no sense"))
    if (
        max(l1_offset + 8 * l1_count, refcounts + (1 << bits)) > length
        or _farthest(file, l1_offset, l1_count) >= length
    ):
        raise Refused(Problem(f"{name}: truncated: {length} bytes, and its tables point behind the end"))
    return int(size)


def _references(name: str, features: int, backing: int, crypt: int, header: bytes, header_length: int) -> None:
    hint = "make it one file with qemu-img convert -O qcow2"
    if backing:
        raise Refused(Problem(f"{name}: has a backing file, another file that would be read with it", hint=hint))
    if features & _DATA_FILE or _DATA_FILE_NAME in _extensions(header, header_length):
        raise Refused(Problem(f"{name}: has an external data file", hint=hint))
    if crypt:
        raise Refused(Problem(f"{name}: encrypted", hint=hint))
    if features & _CORRUPT:
        raise Refused(Problem(f"{name}: marked as corrupt", hint="qemu-img check -r all"))
    if features & ~(_DIRTY | _COMPRESSION | _EXTENDED_L2):
        raise Refused(Problem(f"{name}: uses features of qcow2 that are not known here", hint=hint))


def _extensions(header: bytes, start: int) -> set[int]:
    found: set[int] = set()
    while start + 8 <= len(header):
        kind, size = struct.unpack_from(">II", header, start)
        if kind == 0:
            break
        found.add(kind)
        start += 8 + (size + 7) // 8 * 8
    return found


def _farthest(file: BinaryIO, offset: int, count: int) -> int:
    """The highest place that the first-level table points to."""
    file.seek(offset)
    table = file.read(8 * count)
    mask = 0x00FFFFFFFFFFFE00
    return max((entry & mask for (entry,) in struct.iter_unpack(">Q", table[: len(table) // 8 * 8])), default=0)
