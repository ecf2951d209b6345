"""Inside a container, by LXD's files API: what is there, and putting and taking files. No command runs for it.

LXD looks at the last part of a path without following a link there; what it writes to does follow one. So whoever
writes where the guest's own people may have put a link asks ``entry`` first.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reconciler.backends.lxd.client import Client, Missing, understood
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.session import capture
from reconciler.ports import FILE, FOLDER, LINK, OTHER, Entry
from reconciler.problems import Interrupted, Refused

_TYPES = {"file": FILE, "directory": FOLDER, "symlink": LINK}
_WORDS = {type: word for word, type in _TYPES.items()}
_PATIENCE = 60.0
_WRITING = 600.0
_SMALL = 4 << 20
"""Bytes of what is read as a whole."""


class Files:
    """The files of one container; satisfies ports.GuestFiles. A device or a pipe is a FILE: LXD does not say which.

    within: until when all of it may take; None: a while for each request
    """

    def __init__(self, client: Client, name: str, within: Deadline | None = None) -> None:
        self._client = client
        self._place = ("instances", name, "files")
        self._limit = within

    @property
    def _within(self) -> Deadline:
        return self._limit or Deadline.after(_PATIENCE)

    def entry(self, path: str) -> Entry | None:
        """What is there, a link itself and not what it leads to; None when there is nothing."""
        try:
            headers = self._client.head(*self._place, within=self._within, path=path)
        except Missing:
            return None
        type = _TYPES.get(headers.get("x-lxd-type", "file"), OTHER)
        with understood(self._client.address):
            uid, gid = (int(headers.get(f"x-lxd-{name}", "0")) for name in ("uid", "gid"))
            return Entry(type, int(headers.get("x-lxd-mode", "0"), 8) & 0o7777, uid, gid)

    def read(self, path: str) -> bytes | None:
        """A small file's contents, or where a link leads; None when it is not there. Raises TooMuch: whoever owns it in
        the guest says how much there is."""
        try:
            return self._client.raw(*self._place, within=self._within, most=_SMALL, path=path)
        except Missing:
            return None

    def target(self, path: str) -> str:
        """Where a link leads. Raises Missing."""
        target = self._client.raw(*self._place, within=self._within, most=_SMALL, path=path)
        return target.decode("utf-8", "surrogateescape")

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
        headers = {
            "X-LXD-type": _WORDS[type],
            "X-LXD-mode": f"{mode:04o}",
            "X-LXD-uid": str(uid),
            "X-LXD-gid": str(gid),
        }
        headers |= {"X-LXD-write": "overwrite", "Content-Type": "application/octet-stream"}
        self._client.upload(self._place, data, headers, self._limit or Deadline.after(_WRITING), path=path)


class PlainFiles(Files):
    """The same for copying, where LXD's blindness hurts: opening a pipe for it would never end.

    What is neither file, folder nor link is asked of the guest's own ``find``, one question a folder. A guest that has
    none, does not run or lies gets no more than a request of its own that comes to no end.
    """

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(client, name)
        self._name = name
        self._known: set[str] = set()
        self._odd: set[str] = set()

    def entry(self, path: str) -> Entry | None:
        """What is there; OTHER for what is no plain file by the guest's own word."""
        found = super().entry(path)
        if found is None or found.type != FILE:
            return found
        if posixpath.dirname(path) not in self._known:
            self._ask(path, "-maxdepth", "0")
        return replace(found, type=OTHER) if path in self._odd else found

    def names(self, path: str) -> list[str]:
        """What a folder holds. Raises Missing."""
        self._ask(path, "-mindepth", "1", "-maxdepth", "1")
        self._known.add(path.rstrip("/") or "/")
        return super().names(path)

    def _ask(self, path: str, *depth: str) -> None:
        odd = ["!", "-type", "f", "!", "-type", "d", "!", "-type", "l", "-print0"]
        with contextlib.suppress(Refused, Interrupted):
            code, said = capture(self._client, self._name, ["find", path, *depth, *odd], Deadline.after(_PATIENCE))
            if code == 0:
                self._odd |= {one.decode("utf-8", "surrogateescape") for one in said.split(b"\0")}
