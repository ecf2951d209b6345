"""POLICY: where images come from. What an alias stands for changes without asking; a fingerprint does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.policy.wishes import KERNELS, Where, Wishes


def check_image(wishes: Wishes) -> None:
    """An Image: its files on this host, or its server."""
    source = wishes.spec.get("source", {})
    for part in ("file", "rootfs"):
        if part in source:
            wishes.host_path(("source", part), source[part])
    for part in ("kernel", "modules"):
        if part in source.get("build", {}):
            wishes.host_path(("source", "build", part), source["build"][part], KERNELS)
    if source.get("build", {}).get("commands") and not wishes.policy.commands:
        what = "while the image is made they run as root of this host"
        wishes.refuse(("source", "build", "commands"), what, "images: {commands: true}")
    if "server" in source:
        check_remote(wishes, ("source",), source)


def check_remote(wishes: Wishes, where: Where, source: Mapping[str, Any]) -> None:
    """An image of a server, by alias or fingerprint."""
    server, servers = str(source.get("server", "")), wishes.policy.servers
    if servers is not None and server.rstrip("/") not in {one.rstrip("/") for one in servers}:
        wishes.refuse(where, f"the image server {server}", f'images: {{servers: ["{server}"]}}')
    if "fingerprint" not in source and not wishes.policy.unpinned:
        what = f'what the alias "{source.get("alias", "")}" stands for can change'
        leave = "images: {unpinned: true}; or name the image by its full fingerprint"
        wishes.refuse(where, what, leave)
