"""Tarballs for the tests, good ones and evil ones, member by member."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable, Iterable

METADATA = b'{"architecture": "x86_64", "creation_date": 1}'


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """One member of any kind."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    entry.size = len(data) if kind == tarfile.REGTYPE else 0
    entry.mode = 0o755
    return entry, data


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    """A folder."""
    return member(name, kind=tarfile.DIRTYPE)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic link."""
    return member(name, kind=tarfile.SYMTYPE, link=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A hard link."""
    return member(name, kind=tarfile.LNKTYPE, link=target)


def device(name: str, kind: bytes = tarfile.CHRTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """A device, or a FIFO."""
    return member(name, kind=kind)


def plain(members: Iterable[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tarball as it is before it is packed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def unended(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tarball without the zeros at its end, so that more can follow."""
    data = plain(members).rstrip(b"\0")
    return data.ljust(-(-len(data) // 512) * 512, b"\0")


def good() -> list[tuple[tarfile.TarInfo, bytes]]:
    """What an image is at the least, with what is found in real ones."""
    return [
        member("metadata.yaml", METADATA),
        folder("templates"),
        member("templates/hostname.tpl", b"{{ container.name }}"),
        folder("rootfs"),
        folder("rootfs/usr"),
        symlink("rootfs/bin", "usr/bin"),
        symlink("rootfs/etc/mtab", "/proc/mounts"),
        member("rootfs/usr/bin/true", b"\x7fELF"),
        hardlink("rootfs/usr/bin/false", "rootfs/usr/bin/true"),
        device("rootfs/dev/null"),
        device("rootfs/run/initctl", tarfile.FIFOTYPE),
    ]


def _zstd(data: bytes) -> bytes:
    return subprocess.run(("zstd", "-cq"), input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.xz": lzma.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": _zstd,
}
