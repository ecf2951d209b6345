"""OBSERVE, beyond LXD's own word: whether what its config names is really in the container, as the host's /proc tells.

A device change that LXD refuses half-way leaves the mount, the card or the port gone while its config still shows the
old one. Only an LXD on this very host can be looked at so; of one elsewhere (or of another user's) the config is
believed. No command runs in the guest, and no path of the guest is followed out of it.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler import accounts
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.server import pid_of, server
from reconciler.backends.lxd.terms.values import read_bool
from reconciler.beneath import open_beneath
from reconciler.model import Spec

Identity = tuple[int, int]
"""Device and inode number: the same folder, whatever it is called."""

Device = Mapping[str, str]

_PROC = Path("/proc")
_LARGEST = 1 << 20
_MONITOR = b"[lxc monitor] "
_PORT = re.compile(r"(tcp|udp):.+:\d+")
_PAIRED = frozenset({"bridged", "p2p", "routed"})
"""Cards that are a pair, with one end on the host."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What can be seen of the containers of one LXD. inits: LXC's name → the pid of its init."""

    project: str | None = None
    inits: Mapping[str, int] = field(default_factory=dict)
    listening: frozenset[tuple[int, str]] = frozenset()

    def init_of(self, name: str) -> int | None:
        """The host's pid of that container's init; None when it cannot be seen from here."""
        return self.inits.get(f"{self.project}_{name}" if self.project not in (None, "default") else name)

    def missing(self, raw: Mapping[str, Any]) -> dict[str, str]:
        """The instance's own devices that are not in the running container although they should be, each with why."""
        pid = self.init_of(raw["name"])
        if pid is None or not raw.get("devices"):
            return {}
        mounts = _mount_points(pid)
        if mounts is None:
            return {}
        found = {}
        for name, device in raw["devices"].items():
            if why := self._why_missing(raw, name, device, pid, mounts):
                found[name] = why
        return found

    def account(self, raw: Mapping[str, Any], user: Spec) -> Spec | None:
        """The declared user as the running container's own files have it; None when it is not there.

        What cannot be seen from here is taken to be as it was set up.
        """
        pid = self.init_of(raw["name"])
        passwd, group = (_text(pid, path) if pid is not None else None for path in ("etc/passwd", "etc/group"))
        if passwd is None or group is None:
            return user
        found = next((one for one in accounts.accounts(passwd) if one.name == user.get("name")), None)
        if found is None:
            return None
        seen = {part: getattr(found, part) for part in ("uid", "home", "shell") if part in user}
        if "groups" in user:
            gids = accounts.memberships(group, found)
            names = {one.name for one in accounts.groups(group) if one.gid in gids}
            seen["groups"] = [name for name in user["groups"] if name in names]
        return {**user, **seen}

    def _why_missing(
        self, raw: Mapping[str, Any], name: str, device: Device, pid: int, mounts: frozenset[str]
    ) -> str | None:
        kind = device.get("type")
        if kind == "disk" and device.get("source"):
            return _missing_disk(device, pid, mounts)
        if kind in ("unix-char", "unix-block"):
            return _missing_node(device, mounts)
        if kind == "nic":
            return _missing_card(device, raw["config"].get(f"volatile.{name}.host_name"))
        if kind == "proxy" and not read_bool(device.get("nat", "")) and _PORT.fullmatch(device.get("listen", "")):
            return None if (pid, device["listen"]) in self.listening else "nothing listens for it"
        return None


def look(client: Client, within: Deadline, only: Mapping[str, Any] | None = None) -> Sight:
    """Find the inits of this LXD's containers in one pass over /proc; nothing when it is not on this host.

    only: the one instance that is asked about; who watches over it may be known from before, and is looked at anew
    """
    if client.address.socket is None:
        return Sight()
    daemon = pid_of(server(client, within))
    if only is not None and not any(one.get("type") == "proxy" for one in (only.get("devices") or {}).values()):
        sight = _look_again(daemon, client.address.project, only["name"])
        if sight is not None:
            return sight
    return look_around(daemon, client.address.project)


def _look_again(daemon: int, project: str | None, name: str) -> Sight | None:
    """At one container whose monitor was seen before; None when that is not there (any more)."""
    called = name if project in (None, "default") else f"{project}_{name}"
    monitor = _monitors.get((daemon, called))
    folder, own = _containers_folder(daemon), _standing(daemon)
    if monitor is None or folder is None or own is None:
        return None
    try:
        words = (_PROC / str(monitor) / "cmdline").read_bytes()
    except OSError:
        return None
    if _watched(words, folder) != called or _standing(monitor) != own or (init := _child(monitor)) is None:
        return None
    return Sight(project, {called: init})


_monitors: dict[tuple[int, str], int] = {}
"""(pid of the LXD, LXC's name) → the pid of its monitor, as this process saw them last: only where to look first."""


def _watched(words: bytes, folder: str) -> str | None:
    """LXC's name of the container that a process with this command line watches over; None when it is no monitor."""
    place, _, name = words.removeprefix(_MONITOR).rstrip(b"\0").partition(b" ")
    if not words.startswith(_MONITOR) or place != os.fsencode(folder):
        return None
    return name.decode("utf-8", "replace")


def look_around(daemon: int, project: str | None) -> Sight:
    """The same for the LXD that is this process. Any process may be called as its own are: a guest's are found out."""
    folder, own = _containers_folder(daemon), _standing(daemon)
    if folder is None or own is None:
        return Sight()
    inits: dict[str, int] = {}
    listening = set()
    for pid, words in _processes():
        if words.startswith(_MONITOR):
            name = _watched(words, folder)
            if name is not None and _standing(pid) == own and (init := _child(pid)) is not None:
                inits[name] = init
                _monitors[daemon, name] = pid
        elif b"\0forkproxy\0" in words and (standing := _standing(pid)) is not None and standing[1] == own[1]:
            listening |= set(_forwarded(words))
    return Sight(project, inits, frozenset(listening))


def identity_inside(pid: int, path: str) -> Identity | None:
    """What stands at that path of the container; None when it cannot be told (a link on the way, no leave to look)."""
    try:
        handle = open_beneath(_PROC / str(pid) / "root", Path(path.lstrip("/") or "."))
    except OSError:
        return None
    try:
        found = os.fstat(handle)
    finally:
        os.close(handle)
    return found.st_dev, found.st_ino


def _text(pid: int, path: str) -> str | None:
    """A small plain file of the container; None when it cannot be told what it says."""
    try:
        handle = open_beneath(_PROC / str(pid) / "root", Path(path), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST:
            return None
        return file.read(_LARGEST).decode("utf-8", "replace")


def _containers_folder(daemon: int) -> str | None:
    """Where that LXD keeps its containers, as its monitors call it; None when it is no process of this host."""
    try:
        environment = (_PROC / str(daemon) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    named = [word.removeprefix(b"LXD_DIR=") for word in environment if word.startswith(b"LXD_DIR=")]
    return f"{os.fsdecode(named[0]) if named else '/var/lib/lxd'}/containers"


def _standing(pid: int) -> tuple[bytes, int] | None:
    """Whose process it is (all four of its uids), and how many pid namespaces down; None when it has ended."""
    try:
        status = (_PROC / str(pid) / "status").read_bytes()
    except OSError:
        return None
    rows = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
    return rows.get(b"Uid", b"").strip(), len(rows.get(b"NSpid", b"").split())


def _processes() -> Iterator[tuple[int, bytes]]:
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    yield int(entry), file.read()
            except OSError:
                continue  # it ended meanwhile


def _child(monitor: int) -> int | None:
    """The init that a monitor watches over. A monitor in the middle of forking has others of its own name."""
    try:
        children = (_PROC / str(monitor) / "task" / str(monitor) / "children").read_text(encoding="ascii").split()
        others = [pid for pid in children if not (_PROC / pid / "cmdline").read_bytes().startswith(_MONITOR)]
    except OSError:
        return None
    return int(others[0]) if others else None


def _forwarded(words: bytes) -> Iterator[tuple[int, str]]:
    """``forkproxy -- PID FD LISTEN PID FD CONNECT``: the container's init is one of the two processes."""
    parts = words.decode("utf-8", "replace").rstrip("\0").split("\0")
    rest = parts[parts.index("--") + 1 :] if "--" in parts else []
    if len(rest) >= 6:
        for pid in {rest[0], rest[3]}:
            if pid.isdigit():
                yield int(pid), rest[2]


def _mount_points(pid: int) -> frozenset[str] | None:
    try:
        text = (_PROC / str(pid) / "mountinfo").read_bytes()
    except OSError:
        return None  # gone meanwhile, or another user's
    return frozenset(_unescaped(line.split(b" ", 5)[4]) for line in text.splitlines())


def _unescaped(point: bytes) -> str:
    """The kernel writes a blank as ``\\040``."""
    return re.sub(rb"\\(\d{3})", lambda found: bytes([int(found[1], 8)]), point).decode("utf-8", "surrogateescape")


def _missing_disk(device: Device, pid: int, mounts: frozenset[str]) -> str | None:
    path, source = _inside_path(device["path"]), device["source"]
    outside = _identity(source) if source.startswith("/") and "pool" not in device else None
    if path not in mounts:
        optional = not read_bool(device.get("required", "true")) or read_bool(device.get("optional", ""))
        if outside is None and source.startswith("/") and optional:
            return None
        return f"nothing is mounted at {path}"
    if outside is None or device.get("shift") or _is_block(source):
        return None  # shiftfs and a mounted block device show numbers of their own
    inside = identity_inside(pid, path)
    return None if inside in (None, outside) else f"what is mounted at {path} is not {source} any more"


def _missing_node(device: Device, mounts: frozenset[str]) -> str | None:
    path = _inside_path(device.get("path") or device.get("source", ""))
    source = device.get("source")
    if path in mounts or (source and _identity(source) is None):
        return None
    return f"there is no device at {path}"


def _missing_card(device: Device, host_name: str | None) -> str | None:
    if "network" not in device and device.get("nictype") not in _PAIRED:
        return None
    if host_name and os.path.exists(f"/sys/class/net/{host_name}"):
        return None
    return "its card is gone"


def _inside_path(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False  # it went away this moment
