"""OBSERVE, for an LXD inside of a VM: whether its containers really have what the VM has for them, by the VM's kernel.

LXD's answer says what is configured. A share that the VM had to mount anew is another mount, and the container goes on
holding the old one, dead as it is. The mount tables of both tell; the VM's agent reads them, two small files or more.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.attachments import origin
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.terms import containers
from reconciler.problems import BackendError

Reader = Callable[[Sequence[str]], Mapping[str, bytes]]
"""Reads files of the VM; those that cannot be read are left out, all of them when nobody answers."""

Mounts = Mapping[str, str]
"""Path → the file system (major:minor) of the mount that is on top there."""

_OURS = "/proc/self/mountinfo"
_KINDS = frozenset({"shares", "disks"})


@dataclass(frozen=True, slots=True)
class SightWithin:
    """What can be seen of the containers of an LXD inside of a VM. machine, inside: what is mounted there."""

    machine: Mounts = field(default_factory=dict)
    inside: Mapping[str, Mounts] = field(default_factory=dict)

    def missing(self, raw: Mapping[str, Any]) -> dict[str, str]:
        """What the VM has for that container and the running container has not, each with why."""
        mounts = self.inside.get(raw["name"])
        if mounts is None:
            return {}
        found = {name: self._why_missing(device, mounts) for name, device in _led_through(raw).items()}
        return {name: why for name, why in found.items() if why}

    def _why_missing(self, device: Mapping[str, str], mounts: Mounts) -> str | None:
        path, there = _plain(device["path"]), self.machine.get(_plain(device["source"]))
        if path not in mounts:
            return f"nothing is mounted at {path}"
        if there is None or mounts[path] == there:
            return None  # what the VM has not mounted is its own step's affair
        return f"what is mounted at {path} is not what the VM has now"


def look_within(client: Client, read: Reader, instances: Iterable[Mapping[str, Any]], within: Deadline) -> SightWithin:
    """The mount tables of the VM, and of those running containers that have something from it."""
    pids = {raw["name"]: _pid(client, raw["name"], within) for raw in instances if _led_through(raw)}
    tables = {name: f"/proc/{pid}/mountinfo" for name, pid in pids.items() if pid > 0}
    if not tables:
        return SightWithin()
    words = read([_OURS, *tables.values()])
    if _OURS not in words:
        return SightWithin()
    inside = {name: parse(words[path]) for name, path in tables.items() if path in words}
    return SightWithin(parse(words[_OURS]), inside)


def parse(table: bytes) -> dict[str, str]:
    """``mountinfo`` of a process."""
    rows = (line.split(b" ", 5) for line in table.splitlines())
    return {_unescaped(row[4]): row[2].decode("ascii", "replace") for row in rows if len(row) > 5}


def _led_through(raw: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """The folders that a running container has from its VM."""
    if not containers.is_up(raw):
        return {}
    devices: Mapping[str, Mapping[str, str]] = raw["devices"] or {}
    folders = {name: one for name, one in devices.items() if {"source", "path"} <= one.keys()}
    return {name: one for name, one in folders.items() if (place := origin(name)) and place[0] in _KINDS}


def _pid(client: Client, name: str, within: Deadline) -> int:
    try:
        return int(client.get("instances", name, "state", within=within).metadata["pid"])
    except BackendError:
        return 0  # it went down meanwhile


def _plain(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _unescaped(point: bytes) -> str:
    """The kernel writes a blank as ``\\040``."""
    return re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), point).decode("utf-8", "replace")
