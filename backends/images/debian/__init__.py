"""APPLY, recipes ``debian`` and ``lxd-host``: a real distribution, made on this host from its packages.

rootfs.py brings it into being, the other modules put it into the form that is asked for; the ``*.sh`` run in the guest.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

REVISION = 2
"""Goes up whenever the same recipe is made into something else, so that old cache entries are left behind."""
SUITE = "bookworm"
"""The release that is taken where none is named."""


def script(name: str) -> bytes:
    """One of the guest's own scripts, by its file name here."""
    return (Path(__file__).parent / name).read_bytes()


@lru_cache(maxsize=1)
def recipe_digest() -> str:
    """Changes with the recipes: a part of every cache key."""
    from reconciler.backends.images import busybox
    from reconciler.backends.images.debian import packages

    digest = hashlib.sha256(f"{REVISION} {packages.ALL} {busybox.recipe_digest()}".encode())
    for path in sorted(Path(__file__).parent.glob("*.sh")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
