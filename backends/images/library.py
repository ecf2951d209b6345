"""APPLY, the door of this room: which builder makes what a source describes, and the cache around it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from reconciler.backends.images.cache import Cache, Entry, Facts
from reconciler.backends.images.image import CONTAINER, MACHINE, ContainerImage, MachineImage, key_of
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

Builder = Callable[[Spec, Path, Tell], Facts]


def container_image(source: Spec, state: Path, tell: Tell) -> ContainerImage:
    """The image for LXD, made or fetched if it is not there yet.

    Raises Refused (a clear no, with a hint) or Unreachable (server or mirror does not answer); nothing is kept then.
    """
    cache, key = Cache(state), key_of(CONTAINER, source)
    return _container(cache.obtain(key, lambda folder: _container_builder(source)(source, folder, tell), tell))


def machine_image(source: Spec, state: Path, tell: Tell) -> MachineImage:
    """The image for QEMU, made or fetched if it is not there yet. Raises like ``container_image``."""
    cache, key = Cache(state), key_of(MACHINE, source)
    return _machine(cache.obtain(key, lambda folder: _machine_builder(source, cache)(source, folder, tell), tell))


def cached_container(source: Spec, state: Path) -> ContainerImage | None:
    """The image if it is there already."""
    entry = Cache(state).find(key_of(CONTAINER, source))
    return _container(entry) if entry else None


def cached_machine(source: Spec, state: Path) -> MachineImage | None:
    """The image if it is there already."""
    entry = Cache(state).find(key_of(MACHINE, source))
    return _machine(entry) if entry else None


def drop(key: str, state: Path) -> bool:
    """Delete one image; False when there was none. Waits for whoever is just making it."""
    return Cache(state).drop(key)


def prune(keep: Collection[str], state: Path) -> tuple[str, ...]:
    """Delete every image whose key is not to be kept, and what killed builders left behind; the keys deleted."""
    return Cache(state).prune(keep)


def expire(keep: Collection[str], unused: float, state: Path) -> tuple[str, ...]:
    """Delete every image that is not to be kept and that nobody asked for during so many seconds; the keys deleted."""
    return Cache(state).expire(keep, unused)


def size(state: Path) -> int:
    """Bytes on disk of all that is kept."""
    return Cache(state).size()


def _container(entry: Entry) -> ContainerImage:
    facts, folder = entry.facts, entry.folder
    rootfs = folder / facts["rootfs"] if facts["rootfs"] else None
    return ContainerImage(entry.key, folder / facts["metadata"], rootfs, facts["fingerprint"], facts["size"])


def _machine(entry: Entry) -> MachineImage:
    def path(part: str) -> Path | None:
        return entry.folder / facts[part] if facts.get(part) else None

    facts = entry.facts
    return MachineImage(
        key=entry.key,
        folder=entry.folder,
        kernel=path("kernel"),
        kernel_elf=path("kernel_elf"),
        initrd=path("initrd"),
        command_line=facts.get("command_line", ""),
        disk=path("disk"),
        disk_format=facts.get("disk_format"),
        virtual_size=facts.get("virtual_size"),
        sha256=facts["sha256"],
        read_only=bool(facts.get("read_only")),
    )


def _container_builder(source: Spec) -> Builder:
    if "build" in source:
        return _container_recipe(source["build"]["recipe"])
    if "file" in source or "url" in source:
        from reconciler.backends.images import imported

        return imported.container
    raise _foreign(source)


def _machine_builder(source: Spec, cache: Cache) -> Builder:
    if "build" in source:
        return _machine_recipe(source["build"]["recipe"], cache)
    if "file" in source or "url" in source:
        from reconciler.backends.images import imported

        return imported.machine
    raise _foreign(source)


def _container_recipe(recipe: str) -> Builder:
    if recipe == "busybox":
        from reconciler.backends.images.busybox import container as busybox

        return busybox.build
    if recipe == "debian":
        from reconciler.backends.images.debian.container import build

        return build
    raise _unknown_recipe(recipe, "container", ("busybox", "debian"))


def _machine_recipe(recipe: str, cache: Cache) -> Builder:
    if recipe == "busybox":
        from reconciler.backends.images.busybox import machine as busybox

        return busybox.builder(cache)
    if recipe == "debian":
        from reconciler.backends.images.debian.machine import build

        return build
    if recipe == "lxd-host":
        from reconciler.backends.images.debian import host

        return host.build
    raise _unknown_recipe(recipe, "VM", ("busybox", "debian", "lxd-host"))


def _unknown_recipe(recipe: str, what: str, known: Collection[str]) -> Refused:
    return Refused(Problem(f"recipe {recipe}: makes no {what}", hint=f"recipes for a {what}: {', '.join(known)}"))


def _foreign(source: Spec) -> Refused:
    if "server" in source:
        return Refused(Problem("an image of an image server is fetched by LXD itself, and only for containers"))
    return Refused(
        Problem(f"expected one of file, url and build as the source of an image, got {', '.join(source) or 'nothing'}")
    )
