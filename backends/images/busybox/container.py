"""APPLY, recipe ``busybox`` for a container: one unified tarball of about 1 MB."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from reconciler.backends.images.busybox import script
from reconciler.backends.images.busybox.userland import (
    check_fields,
    extra_files,
    find_busybox,
    userland,
    version_of,
    with_extra,
)
from reconciler.backends.images.cache import Facts
from reconciler.backends.images.tree import EPOCH, Tree, file, write_tarball
from reconciler.model import Json, Spec
from reconciler.ports import Tell

FIELDS = frozenset({"recipe", "files"})
SEED = "/var/lib/cloud/seed/nocloud-net"

TEMPLATES = {
    "hostname.tpl": "{{ container.name }}\n",
    "user-data.tpl": '{{ config_get("cloud-init.user-data", config_get("user.user-data", "")) }}',
    "meta-data.tpl": "instance-id: {{ container.name }}\nlocal-hostname: {{ container.name }}\n",
}
TARGETS = {"/etc/hostname": "hostname.tpl", f"{SEED}/user-data": "user-data.tpl", f"{SEED}/meta-data": "meta-data.tpl"}


def build(source: Spec, folder: Path, tell: Tell) -> Facts:
    """Make the image in ``folder``."""
    recipe = source["build"]
    check_fields(recipe, FIELDS)
    extra = extra_files(recipe)
    tell("making a busybox image")
    busybox, applets = find_busybox(folder, tell)
    path = folder / "image.tar.gz"
    write_tarball(path, _image(busybox, applets, extra))
    data = path.read_bytes()
    return {"metadata": path.name, "rootfs": None, "fingerprint": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _image(busybox: bytes, applets: list[str], extra: Tree) -> Tree:
    root = userland(busybox, applets)
    root["sbin/init"] = file(script("container-init.sh"), 0o755)
    root["lib/reconciler/uevent"] = file(script("container-uevent.sh"), 0o755)
    tree = {f"rootfs/{path}": node for path, node in with_extra(root, extra).items()}
    tree |= {f"templates/{name}": file(text.encode()) for name, text in TEMPLATES.items()}
    # JSON is YAML, too.
    tree["metadata.yaml"] = file(json.dumps(_metadata(version_of(busybox)), indent=1, sort_keys=True).encode())
    return tree


def _metadata(version: str) -> Json:
    properties = {"os": "Busybox", "release": version, "description": f"Busybox {version}, made by reconciler"}
    templates = {path: {"when": ["create", "copy", "rename"], "template": name} for path, name in TARGETS.items()}
    return {
        "architecture": "x86_64",
        "creation_date": EPOCH,
        "properties": {**properties, "architecture": "amd64"},
        "templates": templates,
    }
