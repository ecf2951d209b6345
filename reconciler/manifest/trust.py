"""LOAD: whose file is this? Whoever can write a manifest, a policy or a folder on the way to it owns the host.

Trusted are root and ourselves. A sticky folder such as /tmp is fine on the way: others cannot replace our files in it.
A group that is the user's own (as Debian and Ubuntu make them) counts as the user; root's never does.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache

Why = tuple[str, str]

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def distrust(about: os.stat_result) -> Why | None:
    """Why this file or folder is not to be trusted (summary, hint); None when it is."""
    if about.st_uid != 0 and about.st_uid != os.geteuid():
        return f"belongs to uid {about.st_uid}, who is neither root nor the caller", "chown it, or copy it"
    if not about.st_mode & _OTHERS:
        return None
    if stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX:
        return None
    if not about.st_mode & stat.S_IWOTH and _is_own_group(about.st_uid, about.st_gid):
        return None
    return f"can be written by others (mode {stat.S_IMODE(about.st_mode):04o})", "chmod go-w"


def distrust_folders(folder: str) -> Why | None:
    """The same for a folder and everything above it, as written and with links followed."""
    return _distrust_folders(os.path.abspath(folder), os.geteuid())


def look_anew() -> None:
    """Folders may be others by now: what is read from here on is judged by what they are then."""
    _distrust_folders.cache_clear()


@lru_cache(maxsize=256)
def _distrust_folders(folder: str, _caller: int) -> Why | None:
    for place in {folder, os.path.realpath(folder)}:
        at = place
        while True:
            try:
                why = distrust(os.stat(at))
            except OSError as error:
                return f"{at}: cannot be read: {error.strerror}", "check its owner and mode"
            if why is not None:
                return f"the folder {at} {why[0]}", f"{why[1]} {at}" if why[1] == "chmod go-w" else why[1]
            if at == os.path.dirname(at):
                break
            at = os.path.dirname(at)
    return None


@lru_cache(maxsize=64)
def _is_own_group(uid: int, gid: int) -> bool:
    """Whether the group is this user's private one: of the same name, and with nobody else in it."""
    import grp
    import pwd

    if uid == 0:
        return False
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user.pw_name and user.pw_gid == gid and set(group.gr_mem) <= {user.pw_name}
