"""APPLY, before a guest exists: turns a resolved ``Image.source`` into files that LXD or QEMU can start from.

Shared by the lxd and qemu backends; knows neither. Everything is kept in ``<state>/images``, addressed by what it was
made from, and a second request costs milliseconds and needs neither network nor apt.
"""

from __future__ import annotations

from reconciler.backends.images.image import ContainerImage, MachineImage, key_of
from reconciler.backends.images.library import (
    cached_container,
    cached_machine,
    container_image,
    drop,
    expire,
    machine_image,
    prune,
    size,
)

__all__ = [
    "ContainerImage",
    "MachineImage",
    "cached_container",
    "cached_machine",
    "container_image",
    "drop",
    "expire",
    "key_of",
    "machine_image",
    "prune",
    "size",
]
