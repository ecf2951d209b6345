"""APPLY, in the process that is to be a virtiofsd: shut it in with one folder, then become it. Imports nothing of ours.

In a mount namespace that nobody else sees, the folder is mounted where the daemon will look for it: without setuid,
without device nodes, and read-only where it is to be so. So neither the guest nor a daemon that was broken into can
write there; what the daemon does on top of that, it does to itself. The folder comes as a descriptor and is entered
before the namespace is made: no path leads to it any more.

What the relay, which has forked this process, asks for:

    {"source": 5, "target": "/…/root", "readOnly": true, "argv": ["/usr/lib/qemu/virtiofsd", …]}
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC = 1, 2, 4, 8
_REMOUNT, _NO_ATIME, _NO_DIR_ATIME, _BIND, _REC, _PRIVATE = 32, 1024, 2048, 4096, 1 << 14, 1 << 18
_RELATIVE_ATIME = 1 << 21
_KEPT = {
    os.ST_RDONLY: _READ_ONLY,
    os.ST_NOEXEC: _NO_EXEC,
    os.ST_NOATIME: _NO_ATIME,
    os.ST_NODIRATIME: _NO_DIR_ATIME,
    os.ST_RELATIME: _RELATIVE_ATIME,
}
"""What the folder's own mount already forbids stays forbidden."""
_libc = ctypes.CDLL(None, use_errno=True)


def become(wanted: Mapping[str, Any]) -> NoReturn:
    """Never comes back: when something is wrong, the process ends with a word about it."""
    try:
        _become(wanted)
    except OSError as error:
        sys.exit(f"the folder cannot be shut in: {error.strerror or error}")


def _become(wanted: Mapping[str, Any]) -> NoReturn:
    source, target = wanted["source"], wanted["target"]
    os.set_inheritable(source, False)
    os.fchdir(source)
    _shut_in()
    _call("mount", None, b"/", None, _REC | _PRIVATE, None)
    # "." is the folder that was opened: the kernel has carried our working directory over into the new namespace.
    _call("mount", b".", os.fsencode(target), None, _BIND, None)
    there = os.statvfs(target).f_flag
    flags = sum(flag for had, flag in _KEPT.items() if there & had) | _NO_SUID | _NO_DEV
    flags |= _READ_ONLY if wanted["readOnly"] else 0
    _call("mount", None, os.fsencode(target), None, _REMOUNT | _BIND | flags, None)
    _check(source, target, wanted["readOnly"])
    os.chdir("/")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each file that the guest knows is an open one here
    os.execv(wanted["argv"][0], wanted["argv"])  # noqa: S606


def _shut_in() -> None:
    """As root in a mount namespace; as anybody else in a user namespace, too, whose only user is oneself."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _call("unshare", _NEW_MOUNTS)
        return
    _call("unshare", _NEW_MOUNTS | _NEW_USER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _check(source: int, target: str, read_only: bool) -> None:
    opened, mounted, flags = os.fstat(source), os.stat(target), os.statvfs(target).f_flag
    wanted = os.ST_NOSUID | os.ST_NODEV | (os.ST_RDONLY if read_only else 0)
    if (opened.st_dev, opened.st_ino) != (mounted.st_dev, mounted.st_ino) or flags & wanted != wanted:
        raise OSError("what was mounted is not what was opened")


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
