"""First step of every use of this backend: from a Host's spec and the environment to the one Address of an LXD."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SNAP_SOCKET = Path("/var/snap/lxd/common/lxd/unix.socket")
DISTRIBUTION_SOCKET = Path("/var/lib/lxd/unix.socket")
SOCKET_NAME = "unix.socket"


@dataclass(frozen=True, slots=True)
class Address:
    """Where an LXD answers: a unix socket, or an https URL with the certificates of both sides (file paths).

    project, target: LXD project and cluster member that everything is asked of; None for LXD's own default
    origin:          how we came to it, shown to people
    """

    socket: Path | None = None
    url: str | None = None
    server_certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    project: str | None = None
    target: str | None = None
    origin: str = ""

    def __str__(self) -> str:
        return str(self.socket) if self.socket else str(self.url)


def embedded_folder(state: Path) -> Path:
    """The LXD_DIR of the private LXD that ``doctor --fix`` starts."""
    return state / "lxd"


def resolve_address(lxd: Mapping[str, Any], state: Path, environment: Mapping[str, str] | None = None) -> Address:
    """The address that the ``lxd`` mapping of a Host means here. Looks at which sockets exist, connects to none."""
    place = {"project": lxd.get("project"), "target": lxd.get("target")}
    if url := lxd.get("url"):
        return Address(
            url=str(url).rstrip("/"),
            server_certificate=_path(lxd, "serverCertificate"),
            client_certificate=_path(lxd, "clientCertificate"),
            client_key=_path(lxd, "clientKey"),
            origin="the Host's url",
            **place,
        )
    socket = str(lxd.get("socket", "auto"))
    if socket != "auto":
        return Address(socket=Path(socket), origin="the Host's socket", **place)
    path, origin = find_socket(state, os.environ if environment is None else environment)
    return Address(socket=path, origin=origin, **place)


def find_socket(state: Path, environment: Mapping[str, str]) -> tuple[Path, str]:
    """What ``socket: auto`` means: the first that is named or exists, else the embedded one (running or not).

    What the environment names is taken even when nothing is there: falling back to another LXD
    because one is down would make everything a second time.
    """
    if named := environment.get("LXD_SOCKET"):
        return Path(named), "LXD_SOCKET"
    if folder := environment.get("LXD_DIR"):
        return Path(folder) / SOCKET_NAME, "LXD_DIR"
    for path, origin in ((SNAP_SOCKET, "the snap's LXD"), (DISTRIBUTION_SOCKET, "the distribution's LXD")):
        if path.exists():
            return path, origin
    return embedded_folder(state) / SOCKET_NAME, "the embedded LXD"


def _path(lxd: Mapping[str, Any], name: str) -> Path | None:
    return Path(lxd[name]) if lxd.get(name) else None
