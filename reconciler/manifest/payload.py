"""LOAD: the files that a manifest puts into guests, read so that it cannot reach for somebody else's.

The path of what was really opened is compared, not the path as written: links and ".." lead nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from reconciler.manifest.reading import MAX_PAYLOAD
from reconciler.manifest.trust import distrust
from reconciler.problems import ManifestError, Problem

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_HINT = "the path is taken from the manifest's folder"


def read(path: str, base: str, roots: Collection[str] = ()) -> bytes:
    """The contents. Raises ManifestError."""
    full = os.path.join(base, path)
    try:
        handle = os.open(full, _OPEN)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestError(Problem(f"source: {path}: {words}", hint=_HINT)) from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise _refused(path, "expected a regular file", _HINT)
        really = os.readlink(f"/proc/self/fd/{handle}")
        if not any(_is_below(really, root) for root in _allowed(base, roots)):
            raise _refused(path, f"{really} is outside of the manifest's folder", "copy the file beside it")
        if (why := distrust(about)) is not None:
            raise _refused(path, *why)
        if about.st_size > MAX_PAYLOAD:
            raise _refused(
                path, f"{about.st_size} bytes are more than {MAX_PAYLOAD >> 20} MiB", "put it into the image"
            )
        return os.read(handle, MAX_PAYLOAD + 1)
    finally:
        os.close(handle)


def _allowed(base: str, roots: Collection[str]) -> list[str]:
    """A caller who is not root may hand out what is their own."""
    home = [os.path.expanduser("~")] if os.geteuid() != 0 else []
    return [base, *home, *roots]


def _is_below(path: str, root: str) -> bool:
    root = os.path.realpath(root)
    return path == root or path.startswith(root.rstrip("/") + "/")


def _refused(path: str, summary: str, hint: str) -> ManifestError:
    """Without a place: that is in the manifest, which only the caller knows."""
    return ManifestError(Problem(f"source: {path}: {summary}", hint=hint))
