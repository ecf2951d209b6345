"""APPLY, the image cache: is a file still what it was when it was put there?

A checksum over what is in the file: stretches of zeros count by their place alone, so that a disk of many GiB with
little on it costs what is on it, and holes may be filled or made without changing anything.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)
_Stamp = tuple[int, int, int, int]
_looked_at: dict[_Stamp, str] = {}
"""What this process has read already: a hundred guests from one image read it once."""


def of(path: Path) -> str:
    """The checksum; a file that this process has read is read again only when it was written since. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        stamp = _stamp(file.fileno())
        if stamp in _looked_at:
            return _looked_at[stamp]
        digest = hashlib.sha256(str(stamp[2]).encode())
        for place in _filled(file.fileno(), stamp[2]):
            chunk = os.pread(file.fileno(), CHUNK, place)
            if chunk != _ZEROS[: len(chunk)]:
                digest.update(b"%d:" % place + chunk)
        if _stamp(file.fileno()) == stamp:
            _looked_at[stamp] = digest.hexdigest()
    return digest.hexdigest()


def _filled(handle: int, size: int) -> Iterator[int]:
    """Where chunks begin that are not all hole."""
    place = 0
    while place < size:
        try:
            place = os.lseek(handle, place, os.SEEK_DATA) // CHUNK * CHUNK
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but hole from here on
                return
            raise
        yield place
        place += CHUNK


def _stamp(handle: int) -> _Stamp:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
