"""APPLY, a packed file as a stream that only goes forward and that notices when it is a bomb."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from reconciler.problems import Problem, Refused

CHUNK = 1 << 18
FREE = 256 << 20
"""Bytes that anything may unpack to."""
RATIO = 100
"""Beyond that, how many times its own size; root file systems come to 10 at the most."""
MEMORY = "-M128MB"
"""What the host's zstd may take: enough for all but its ``--ultra --long`` modes."""

MAGICS = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}


class Bomb(Exception):
    """It unpacks to far more than it is."""


class Damaged(Exception):
    """It cannot be unpacked to its end."""


class Unpacking(io.RawIOBase):
    """The unpacked bytes; ``seek`` only goes forward."""

    def __init__(self, inner: BinaryIO, packed_size: int) -> None:
        self._inner = inner
        self._limit = max(FREE, RATIO * packed_size)
        self._place = 0
        self._last = b""

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, fewer only at the end."""
        if size is None or size < 0 or size > self._limit:
            size = self._limit + 1
        parts = []
        while size > 0 and (chunk := self._next(min(size, CHUNK))):
            parts.append(chunk)
            size -= len(chunk)
        data = b"".join(parts)
        self._last = data or self._last
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Forward to an absolute place."""
        if whence != io.SEEK_SET or offset < self._place:
            raise Damaged("it would have to be read backwards")
        while self._place < offset and self._next(min(offset - self._place, CHUNK)):
            pass
        return self._place

    def tell(self) -> int:
        return self._place

    def nothing_follows(self) -> None:
        """Raises Damaged unless what was read last, and all that is left, is zeros."""
        if self._last.strip(b"\0"):
            raise Damaged("a broken header in the middle")
        while chunk := self._next(CHUNK):
            if chunk.strip(b"\0"):
                raise Damaged("something follows behind its end")

    def _next(self, size: int) -> bytes:
        try:
            chunk = self._inner.read(size)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise Damaged(str(error)) from error
        self._place += len(chunk)
        if self._place > self._limit:
            raise Bomb(f"it unpacks to more than {self._limit >> 20} MiB")
        return chunk


@contextmanager
def unpacking(path: Path) -> Iterator[Unpacking]:
    """The file unpacked, by whichever packer its first bytes name; a plain one as it is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(6)
    kind = next((kind for magic, kind in MAGICS.items() if head.startswith(magic)), None)
    if kind == "zstd":
        with _zstd(path) as inner:
            yield Unpacking(inner, size)
        return
    with _opened(path, kind) as inner:
        yield Unpacking(inner, size)


def _opened(path: Path, kind: str | None) -> BinaryIO:
    if kind == "gzip":
        return cast(BinaryIO, gzip.open(path))
    if kind == "xz":
        return cast(BinaryIO, lzma.open(path))
    if kind == "bzip2":
        return cast(BinaryIO, bz2.open(path))
    return path.open("rb")


@contextmanager
def _zstd(path: Path) -> Iterator[BinaryIO]:
    """Through the host's zstd, with its memory bounded: Python 3.11 has none of its own."""
    if shutil.which("zstd") is None:
        raise Refused(Problem("zstd: not installed", hint="apt-get install -y zstd, or pack the image with xz"))
    command = ("zstd", "-dcq", MEMORY)
    with (
        path.open("rb") as packed,
        subprocess.Popen(command, stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
    ):
        assert process.stdout is not None
        try:
            yield cast(BinaryIO, process.stdout)
            if process.wait(timeout=30) != 0:
                raise Damaged("zstd cannot unpack it")
        finally:
            process.kill()
