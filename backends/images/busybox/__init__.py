"""APPLY, recipe ``busybox``: the smallest guests that still behave: 1 MB as a container, a few seconds as a VM.

container.py and machine.py put the pieces together; the ``*.sh`` beside them run inside the guest.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

REVISION = 1
"""Goes up whenever the same recipe is made into something else, so that old cache entries are left behind."""


def script(name: str) -> bytes:
    """One of the guest's own scripts, by its file name here."""
    return (Path(__file__).parent / name).read_bytes()


@lru_cache(maxsize=1)
def recipe_digest() -> str:
    """Changes with the recipe: a part of every cache key."""
    from reconciler.backends.images.busybox.programs import PROGRAMS

    digest = hashlib.sha256(f"{REVISION} {sorted(PROGRAMS)}".encode())
    for path in sorted(Path(__file__).parent.glob("*.sh")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
