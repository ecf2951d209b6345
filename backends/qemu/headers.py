"""APPLY, before a file becomes a guest's disk: what its header says. Nothing is guessed from it, only refused.

The guest owns the content of its disks: read here, in a few dozen bytes, instead of by a program that follows whatever
a header points to.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.problems import Problem, Refused

# A raw disk may begin with LUKS or an archive: that is what a guest does with it, not a format of the file.
_MAGICS = {
    b"QFI\xfb": "qcow2",
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Di": "vmdk",
    b"vhdx": "vhdx",
    b"cone": "vpc",
}
_SIZE_AT = 24
_MISMATCH_HINT = "say the format that it has, or convert it with `qemu-img convert`"


@dataclass(frozen=True, slots=True)
class Header:
    """format: ``raw`` when nothing else is recognised; size: what a guest sees, in bytes."""

    format: str
    size: int


def read_header(handle: int) -> Header:
    """What the open file says it is."""
    start = os.pread(handle, 32, 0)
    format = _MAGICS.get(start[:4], "raw")
    if format == "qcow2" and len(start) == 32:
        return Header(format, int(struct.unpack_from(">Q", start, _SIZE_AT)[0]))
    return Header(format, _length(handle))


def check(handle: int, format: str, subject: str, name: str) -> Header:
    """The header of a file that others made, when it is whole, of that format, and stands alone; else Refused."""
    header = read_header(handle)
    if header.format != format:
        what = f"{name}: declared as {format}, its header says {header.format}"
        raise Refused(Problem(what, subject=subject, hint=_MISMATCH_HINT))
    if format == "qcow2":
        from reconciler.backends.images.diskfile import inspect

        try:
            inspect(Path(f"/proc/self/fd/{handle}"), name, format)
        except Refused as refusal:
            raise Refused(replace(refusal.problem, subject=subject)) from refusal
    return header


def _length(handle: int) -> int:
    """Of a file, or of a block device (whose st_size is 0)."""
    status = os.fstat(handle)
    return os.lseek(handle, 0, os.SEEK_END) if stat.S_ISBLK(status.st_mode) else status.st_size
