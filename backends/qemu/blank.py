"""APPLY, a disk with nothing on it: four clusters of qcow2, or a hole. Starting ``qemu-img`` for that takes 20 ms.

An overlay, or a disk that is bigger than one table of ours reaches, is ``qemu_img``'s.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_SECTOR = 512
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_REACH = _CLUSTER * (_CLUSTER // 8)
"""Bytes of the disk behind one entry of the first-level table."""
_BIGGEST = _REACH * (_CLUSTER // 8)
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_LENGTH = 104
_COUNTS, _BLOCK, _MAP = _CLUSTER, 2 * _CLUSTER, 3 * _CLUSTER
"""Where they begin: the table of reference counts, its first block, the first-level table. Each takes one cluster."""


def can_make(format: str, size: int) -> bool:
    """Whether ``make`` knows how to."""
    return format == "raw" or (format == "qcow2" and size <= _BIGGEST)


def make(path: Path, format: str, size: int) -> None:
    """A new file, on the disk when this returns; what a guest sees in it is ``size`` bytes of zeros, in whole sectors.

    Raises OSError, FileExistsError among them.
    """
    size = -(-size // _SECTOR) * _SECTOR
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if format == "qcow2":
            os.posix_fallocate(handle, 0, _MAP + _CLUSTER)  # what a full file system would refuse later, it refuses now
            os.pwrite(handle, _header(size), 0)
            os.pwrite(handle, struct.pack(">Q", _BLOCK), _COUNTS)
            os.pwrite(handle, struct.pack(">4H", 1, 1, 1, 1), _BLOCK)
        else:
            os.truncate(handle, size)
        os.fsync(handle)
    finally:
        os.close(handle)


def _header(size: int) -> bytes:
    """Version 3, as qemu-img writes it when it is told nothing else; and the mark behind it that nothing follows."""
    entries = max(1, -(-size // _REACH))
    no_base = no_encryption = no_snapshots = no_features = 0
    sixteen_bits = 4
    return _HEADER.pack(
        *(b"QFI\xfb", 3, no_base, 0, _CLUSTER_BITS, size, no_encryption),
        *(entries, _MAP, _COUNTS, 1, no_snapshots, 0),
        *(no_features, no_features, no_features, sixteen_bits, _LENGTH),
    ) + bytes(8)
