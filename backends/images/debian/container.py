"""APPLY, recipe ``debian`` for a container: LXD's split image, a metadata tarball and the root as a squashfs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from reconciler.backends.images.busybox.userland import extra_files
from reconciler.backends.images.cache import Facts
from reconciler.backends.images.debian import SUITE, rootfs
from reconciler.backends.images.debian.packages import CONTAINER
from reconciler.backends.images.tree import EPOCH, Tree, file, link, write_tarball
from reconciler.model import Json, Spec
from reconciler.ports import Tell

_TEMPLATES = {
    "hostname.tpl": "{{ container.name }}\n",
    "hosts.tpl": "127.0.0.1\tlocalhost\n127.0.1.1\t{{ container.name }}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
}
_TARGETS = {"/etc/hostname": "hostname.tpl", "/etc/hosts": "hosts.tpl"}
_NETWORK = "auto lo\niface lo inet loopback\n\nallow-hotplug eth0\nauto eth0\niface eth0 inet dhcp\n"
_MASKED = (
    *("systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket"),  # the host's business
    *("e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "modprobe@.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer"),  # what it consists of is declared, and does not change by itself
)
_FILES: Tree = {
    "etc/network/interfaces": file(_NETWORK.encode()),
    "etc/machine-id": file(b""),
    "etc/resolv.conf": file(b""),
    **{f"etc/systemd/system/{unit}": link("/dev/null") for unit in _MASKED},
}


def build(source: Spec, work: Path, tell: Tell) -> Facts:
    """Make the image in ``work``."""
    recipe = source["build"]
    rootfs.check_fields(recipe)
    extra = extra_files(recipe)
    root = work / "root"
    rootfs.bootstrap(root, recipe, CONTAINER, _FILES | extra, tell)
    tell("packing the image")
    command = ["mksquashfs", os.fspath(root), os.fspath(work / "rootfs.squashfs"), "-comp", "zstd"]
    command += ["-Xcompression-level", "3", "-noappend", "-quiet", "-no-progress", "-mkfs-time", str(EPOCH)]
    rootfs.tool([*command, "-wildcards", "-e", "var/cache/apt/archives/*", "var/log/*"], "the image")
    shutil.rmtree(root)
    write_tarball(work / "metadata.tar.gz", _metadata(str(recipe.get("suite", SUITE))))
    parts = {"metadata": "metadata.tar.gz", "rootfs": "rootfs.squashfs"}
    digest = hashlib.sha256()
    for name in parts.values():
        with (work / name).open("rb") as part:  # hundreds of MiB: never as a whole in memory
            while data := part.read(1 << 20):
                digest.update(data)
    size = sum((work / name).stat().st_size for name in parts.values())
    return {**parts, "fingerprint": digest.hexdigest(), "size": size}


def _metadata(suite: str) -> Tree:
    templates = {path: {"when": ["create", "copy", "rename"], "template": name} for path, name in _TARGETS.items()}
    properties = {"os": "Debian", "release": suite, "architecture": "amd64"}
    metadata: Json = {
        "architecture": "x86_64",
        "creation_date": EPOCH,
        "properties": {**properties, "description": f"Debian {suite}, made by reconciler"},
        "templates": templates,
    }
    tree: Tree = {f"templates/{name}": file(text.encode()) for name, text in _TEMPLATES.items()}
    tree["metadata.yaml"] = file(json.dumps(metadata, indent=1, sort_keys=True).encode())
    return tree
