"""Inside a container, by LXD's files API: what is there, and putting and taking files. No command runs for it.

LXD looks at the last part of a path without following a link there; what it writes to does follow one. So whoever
writes where the guest's own people may have put a link asks ``entry`` first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reconciler.backends.lxd.client import Client, Missing
from reconciler.backends.lxd.deadline import Deadline

FILE, FOLDER, LINK = "file", "directory", "symlink"


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at a path. type: FILE (or a device, a pipe: LXD does not tell them apart), FOLDER or LINK."""

    type: str
    mode: int
    uid: int
    gid: int


class Files:
    """The files of one container. Every method raises Refused or Unreachable."""

    def __init__(self, client: Client, name: str, within: Deadline) -> None:
        self._client = client
        self._place = ("instances", name, "files")
        self._within = within

    def entry(self, path: str) -> Entry | None:
        """What is there, a link itself and not what it leads to; None when there is nothing."""
        try:
            headers = self._client.head(*self._place, within=self._within, path=path)
        except Missing:
            return None
        numbers = (int(headers.get(f"x-lxd-{name}", "0")) for name in ("uid", "gid"))
        return Entry(headers.get("x-lxd-type", FILE), int(headers.get("x-lxd-mode", "0"), 8) & 0o7777, *numbers)

    def read(self, path: str) -> bytes | None:
        """A small file's contents, or where a link leads; None when it is not there."""
        try:
            return self._client.raw(*self._place, within=self._within, path=path)
        except Missing:
            return None

    def stream(self, path: str, sink: Callable[[bytes], None]) -> None:
        """A file's contents piece by piece. Raises Missing."""
        self._client.stream(*self._place, sink=sink, within=self._within, path=path)

    def names(self, path: str) -> list[str]:
        """What a folder holds. Raises Missing."""
        return [str(name) for name in self._client.get(*self._place, within=self._within, path=path).metadata or ()]

    def write(self, path: str, data: Any, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Create or overwrite a file (data: bytes or an open file); an existing one keeps its mode and owner."""
        self._put(path, data, FILE, mode, uid, gid)

    def folder(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Make a folder; one that is there keeps its mode and owner."""
        self._put(path, b"", FOLDER, mode, uid, gid)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, where nothing else is."""
        self._put(path, target.encode(), LINK, 0o777, 0, 0)

    def remove(self, path: str) -> bool:
        """Delete a file, a link or an empty folder; False when it was not there."""
        return self._client.delete(self._place, self._within, path=path)

    def _put(self, path: str, data: Any, type: str, mode: int, uid: int, gid: int) -> None:
        headers = {"X-LXD-type": type, "X-LXD-mode": f"{mode:04o}", "X-LXD-uid": str(uid), "X-LXD-gid": str(gid)}
        headers |= {"X-LXD-write": "overwrite", "Content-Type": "application/octet-stream"}
        self._client.upload(self._place, data, headers, self._within, path=path)
