"""APPLY and OBSERVE, inside the guest: shares mounted where they are to be seen, and taken away.

A guest without an agent sees a share as a device, and mounts it itself by its tag.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from threading import Event

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.inside.mounts import Mount, NoFolder, check_path, make_and_mount, mounted, unmount
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import GuestFailed, Problem

_TAG_BYTES = 36
_DRIVER = 15.0
"""Seconds that the guest's driver may take to notice the device."""
_POLL = (0.01, 0.1)
"""How often mounting is tried: seconds at first, and at most."""
_WAYS: Mapping[str, tuple[str, ...]] = {
    "virtiofs": ("nosuid", "nodev"),
    "9p": ("nosuid", "nodev", "trans=virtio", "version=9p2000.L", "msize=262144"),
}
"""Kinds of file system that a share comes as, with the options that each is mounted with."""


def tag_of(name: str) -> str:
    """What the guest knows share ``name`` by, always the same: the device has room for 36 bytes."""
    if len(name.encode()) <= _TAG_BYTES:
        return name
    return f"{name[:27]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def by_hand(name: str, part: Spec) -> str:
    """What to type in a guest that has no agent."""
    kind = part["transport"]
    options = (*(_WAYS[kind]), *(("ro",) if part["readOnly"] else ()))
    return f"mount -t {kind} -o {','.join(options)} {tag_of(name)} {_plain(part['path'])}"


def check(shares: Mapping[str, Spec], subject: str) -> None:
    """Refused when one would take the guest's system away from under it."""
    for name, share in shares.items():
        check_path(share["path"], f"shares.{name}.path", subject)


def is_in_place(table: Mapping[str, Mount], name: str, part: Spec) -> bool:
    """Whether the guest sees the share at its path, with the right that it gives."""
    there = table.get(_plain(part["path"]))
    return there is not None and _is_of(there, name) and ("ro" in there.options) == bool(part["readOnly"])


def put_in_place(agent: Agent, name: str, part: Spec, subject: str) -> None:
    """Have it mounted at its path; does nothing when it is. GuestFailed, in the guest's words, when that fails."""
    table = mounted(agent)
    if is_in_place(table, name, part):
        return
    for path, there in reversed(table.items()):
        if _is_of(there, name):
            unmount(agent, path, subject, lazy=True)
    kind = part["transport"]
    options = (*_WAYS[kind], *(("ro",) if part["readOnly"] else ()))
    _mount(agent, name, kind, _plain(part["path"]), options, subject)


def take_away(agent: Agent, name: str, subject: str, tell: Tell) -> None:
    """Unmount it wherever it is. Whoever still has files of it open keeps nothing but errors."""
    for path, there in reversed(mounted(agent).items()):
        if _is_of(there, name):
            tell(f"unmounting {path}")
            unmount(agent, path, subject, lazy=True)


def _mount(agent: Agent, name: str, kind: str, path: str, options: tuple[str, ...], subject: str) -> None:
    deadline, pause = time.monotonic() + _DRIVER, _POLL[0]
    while True:
        try:
            make_and_mount(agent, tag_of(name), kind, path, options, f"shares.{name}.path", subject)
        except NoFolder:
            raise
        except GuestFailed as error:
            if time.monotonic() > deadline:
                hint = f"has the guest's kernel {kind}, and the tools to mount it?"
                problem = error.problem
                raise GuestFailed(
                    Problem(problem.summary, subject=subject, detail=problem.detail, hint=hint)
                ) from error
            Event().wait(pause)
            pause = min(pause * 2, _POLL[1])
        else:
            return


def _is_of(there: Mount, name: str) -> bool:
    return there.type in _WAYS and there.source == tag_of(name)


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"
