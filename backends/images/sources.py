"""APPLY, sources ``file`` and ``url``: the bytes into the folder of the future cache entry, checked by their sha256.

A file is copied: what a guest was made from must not change under it, and what was checked must be what is used.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from reconciler.backends.images.download import download
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

CHUNK = 1 << 20
_ZEROS = bytes(CHUNK)


@dataclass(frozen=True, slots=True)
class Brought:
    """path: our private copy; name: as people know the file, for its suffix and for messages."""

    path: Path
    name: str
    sha256: str


def bring(source: Spec, folder: Path, tell: Tell) -> Brought:
    """The file that the source names, as ``folder/image``. Raises Refused, Unreachable."""
    return _bring(source, folder / "image", tell)


def bring_rootfs(source: Spec, folder: Path, tell: Tell) -> Brought | None:
    """The second file of a split image, as ``folder/rootfs``; None for an image of one file. Raises likewise."""
    names = {"rootfs": "file", "rootfsUrl": "url", "rootfsSha256": "sha256"}
    second = {names[key]: value for key, value in source.items() if key in names}
    return _bring(second, folder / "rootfs", tell) if second else None


def _bring(source: Spec, path: Path, tell: Tell) -> Brought:
    promised = _digest_of(source)
    if "url" in source:
        if promised is None:
            raise Refused(
                Problem(
                    f"{source['url']}: expected a sha256 beside it", hint="a url without one may be anything tomorrow"
                )
            )
        tell(f"downloading {source['url']}")
        download(source["url"], promised, path, tell)
        return Brought(path, PurePosixPath(unquote(urlsplit(source["url"]).path)).name, promised)
    tell(f"copying {source['file']}")
    found = copy(Path(source["file"]), path)
    if promised not in (None, found):
        raise Refused(Problem(f"{source['file']}: expected sha256 {promised}, got {found}"))
    return Brought(path, source["file"], found)


def _digest_of(source: Spec) -> str | None:
    promised = source.get("sha256")
    if promised is not None and not re.fullmatch(r"[0-9a-f]{64}", promised):
        summary = f'sha256: expected 64 hexadecimal digits in lower case, got "{promised}"'
        raise Refused(Problem(summary, hint="sha256sum FILE prints it"))
    return promised


def copy(source: Path, target: Path) -> str:
    """Copy a regular file, leaving holes where there are zeros; its sha256. Raises Refused."""
    with _opened(source) as reading, target.open("wb") as writing:
        before = os.fstat(reading.fileno())
        digest = _pour(reading, writing)
        after = os.fstat(reading.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Refused(Problem(f"{source}: changed while it was read", hint="apply again when it is finished"))
    return digest


def _opened(path: Path) -> FileIO:
    """Without waiting for whoever might write to a FIFO."""
    if not path.is_absolute():
        raise Refused(Problem(f"{path}: expected an absolute path"))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(Problem(f"{path}: {error.strerror}", hint="name a file of this host")) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused(Problem(f"{path}: expected a regular file", hint="a block device is given as path: of a disk"))
    return FileIO(handle)


def _pour(reading: FileIO, writing: BinaryIO) -> str:
    digest, length = hashlib.sha256(), 0
    while chunk := reading.read(CHUNK):
        digest.update(chunk)
        if chunk == _ZEROS[: len(chunk)]:
            writing.seek(len(chunk), os.SEEK_CUR)
        else:
            writing.write(chunk)
        length += len(chunk)
    writing.truncate(length)
    return digest.hexdigest()
