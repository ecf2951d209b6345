"""APPLY and OBSERVE, inside the guest: what is mounted where, by the kernel's own word; mounting and unmounting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reconciler.backends.qemu.agent import Agent, Finished
from reconciler.problems import GuestFailed, Problem, Refused

TABLE = "/proc/mounts"
_TIMEOUT = 60.0
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_SYSTEM = re.compile(r"/|/(bin|boot|dev|etc|lib(32|64|x32)?|proc|run|sbin|sys|usr|var)|/(dev|proc|sys)/.*")
_MAKE = 'mkdir -p -- "$1" && cd -P -- "$1" && pwd -P'
_NO_FOLDER, _ELSEWHERE = 112, 113
"""Codes that ``mount`` itself does not end with: its are 127 at most, and of one bit each."""
_MAKE_AND_MOUNT = f"""
mkdir -p -- "$1" && cd -P -- "$1" && there=$(pwd -P) || exit {_NO_FOLDER}
if [ "$there" != "$1" ]; then echo "$there"; exit {_ELSEWHERE}; fi
shift
exec mount "$@"
"""
_BUSY = """
for process in /proc/[0-9]*; do
    for link in "$process/cwd" "$process/root" "$process"/fd/*; do
        there=$(readlink "$link" 2>/dev/null) || continue
        case "$there" in "$1" | "$1"/*) ;; *) continue ;; esac
        read -r name <"$process/comm" && echo "$name (pid ${process#/proc/})"
        break
    done
done
"""


class NoFolder(GuestFailed):
    """The guest cannot have a folder there, or has another one there than its name says."""


class Mount(NamedTuple):
    """One line of the kernel's table. source: what was mounted, such as ``/dev/vda`` or a virtiofs tag."""

    source: str
    type: str
    options: frozenset[str]


def mounted(agent: Agent) -> dict[str, Mount]:
    """What the guest has mounted: path → the mount that is on top there. Needs no program in the guest."""
    return parse(agent.read_file(TABLE))


def parse(table: bytes) -> dict[str, Mount]:
    """``/proc/mounts``; of several mounts at one path the last, which hides the others."""
    found = {}
    for line in table.splitlines():
        words = [_unescaped(word) for word in line.split(b" ")]
        if len(words) >= 4:
            found[words[1]] = Mount(words[0], words[2], frozenset(words[3].split(",")))
    return found


def check_path(path: str, field: str, subject: str) -> None:
    """Refused when something mounted there would take the guest's system away from under it."""
    plain = re.sub("/+", "/", path).rstrip("/") or "/"
    if _SYSTEM.fullmatch(plain):
        hint = "mount it at a path of its own, such as /data"
        raise Refused(Problem(f"{field}: {path} is the guest's own", subject=subject, hint=hint))


def make_folder(agent: Agent, path: str, subject: str) -> str:
    """The folder is there; where it really is, links on the way followed: so the kernel's table will call it."""
    done = agent.run(["/bin/sh", "-c", _MAKE, "sh", path], _TIMEOUT)
    if done.code != 0:
        raise _no_folder(path, done, subject)
    return done.out.decode("utf-8", "surrogateescape").removesuffix("\n")


def mount(agent: Agent, source: str, type: str | None, path: str, options: Sequence[str], subject: str) -> None:
    """``path`` is an existing folder; type None: whatever the guest finds. GuestFailed with the guest's words."""
    done = agent.run(["mount", *_words(source, type, path, options)], _TIMEOUT)
    if done.code != 0:
        raise _not_mounted(source, path, done, subject)


def make_and_mount(
    agent: Agent, source: str, type: str, path: str, options: Sequence[str], field: str, subject: str
) -> None:
    """The folder made and the mount, in one go. GuestFailed, in the guest's words; too where links lead elsewhere."""
    words = [path, *_words(source, type, path, options)]
    done = agent.run(["/bin/sh", "-c", _MAKE_AND_MOUNT, "sh", *words], _TIMEOUT)
    if done.code == _NO_FOLDER:
        raise _no_folder(path, done, subject)
    if done.code == _ELSEWHERE:
        where = done.out.decode("utf-8", "surrogateescape").removesuffix("\n")
        raise NoFolder(
            Problem(f"{field}: in the guest, {path} leads to {where}", subject=subject, hint=f"say path: {where}")
        )
    if done.code != 0:
        raise _not_mounted(source, path, done, subject)


def unmount(agent: Agent, path: str, subject: str, lazy: bool = False) -> None:
    """Take away what is mounted there, and see that what was written is on it.

    lazy: at once, whoever uses it. Never for a disk: what has files open goes on writing to it. Without it, Refused
    when it is in use, with who uses it as far as that can be told.
    """
    done = agent.run(["umount", *(["-l"] if lazy else []), path], _TIMEOUT)
    if done.code == 0 or path not in (table := mounted(agent)):
        return
    users = ", ".join(
        [*(f"what is mounted at {one}" for one in table if one.startswith(f"{path}/")), *_users(agent, path)]
    )
    what = f"{path} is in use in the guest" + (f" by {users}" if users else "")
    hint = "it stays as it is: end what uses it, then apply again"
    raise Refused(Problem(what, subject=subject, detail=_said(done.err), hint=hint))


def is_mounted(table: Mapping[str, Mount], path: str, source: str) -> bool:
    """Whether that, and nothing on top of it, is mounted there."""
    return path in table and table[path].source == source


def _words(source: str, type: str | None, path: str, options: Sequence[str]) -> list[str]:
    return [*(("-t", type) if type else ()), *(("-o", ",".join(options)) if options else ()), source, path]


def _no_folder(path: str, done: Finished, subject: str) -> NoFolder:
    return NoFolder(Problem(f"{path}: cannot be made a folder", subject=subject, detail=_said(done.err)))


def _not_mounted(source: str, path: str, done: Finished, subject: str) -> GuestFailed:
    what = f"{path}: the guest cannot mount {source} there"
    return GuestFailed(Problem(what, subject=subject, detail=_said(done.err + done.out)))


def _users(agent: Agent, path: str) -> list[str]:
    """Who has something open below that path; at most a handful."""
    return _said(agent.run(["/bin/sh", "-c", _BUSY, "sh", path], _TIMEOUT).out).splitlines()[:5]


def _said(words: bytes) -> str:
    return words.decode("utf-8", "replace").strip()[-2000:]


def _unescaped(word: bytes) -> str:
    """The kernel writes a blank as ``\\040``."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), word).decode("utf-8", "surrogateescape")
