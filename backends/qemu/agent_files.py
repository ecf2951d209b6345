"""Inside a VM, by its guest agent: what is there, and putting and taking files, with programs that every Linux has."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from typing import BinaryIO

from reconciler.backends.qemu.agent import Agent
from reconciler.ports import FILE, FOLDER, LINK, OTHER, Entry
from reconciler.problems import Problem, Refused

_PATIENCE = 60.0
_ENTRY = re.compile(rb"([0-9a-f]{1,8}) (\d{1,10}) (\d{1,10})\n")
_TYPES = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK}


class AgentFiles:
    """Satisfies ports.GuestFiles; for as long as the agent's session lasts. No shell reads a path."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def entry(self, path: str) -> Entry | None:
        """What is there; None when there is nothing."""
        done = self._agent.run(["stat", "-c", "%f %u %g", "--", path], _PATIENCE)
        if done.code != 0:
            return None
        if (said := _ENTRY.fullmatch(done.out)) is None:
            raise Refused(Problem("the guest's stat does not say what it should", subject=path))
        mode = int(said[1], 16)
        return Entry(_TYPES.get(stat.S_IFMT(mode), OTHER), stat.S_IMODE(mode), int(said[2]), int(said[3]))

    def names(self, path: str) -> list[str]:
        """What a folder holds."""
        found = self._run("find", path, "-mindepth", "1", "-maxdepth", "1", "-print0").split(b"\0")
        return [one.rpartition(b"/")[2].decode("utf-8", "surrogateescape") for one in found if one]

    def target(self, path: str) -> str:
        """Where a link leads."""
        return self._run("readlink", "--", path).removesuffix(b"\n").decode("utf-8", "surrogateescape")

    def stream(self, path: str, sink: Callable[[bytes], None]) -> None:
        """A file's contents piece by piece."""
        for part in self._agent.parts_of_file(path):
            sink(part)

    def write(self, path: str, data: BinaryIO, mode: int, uid: int, gid: int) -> None:
        """Create or overwrite a file. It is whose it will be before there is anything in it to read."""
        self._agent.write_file(path, b"")
        self._belongs(path, mode, uid, gid)
        self._agent.write_file(path, data)

    def folder(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Make a folder."""
        self._run("mkdir", "--", path)
        self._belongs(path, mode, uid, gid)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, where nothing else is."""
        self._run("ln", "-s", "--", target, path)

    def remove(self, path: str) -> bool:
        """Delete a file or a link; False when it was not there."""
        there = self.entry(path) is not None
        self._run("rm", "-f", "--", path)
        return there

    def _belongs(self, path: str, mode: int, uid: int, gid: int) -> None:
        self._run("chown", "--", f"{uid}:{gid}", path)
        self._run("chmod", "--", f"{mode:04o}", path)

    def _run(self, *words: str) -> bytes:
        done = self._agent.run(words, _PATIENCE)
        if done.code != 0:
            said = done.err.decode("utf-8", "replace").strip()
            raise Refused(Problem(f"the guest's {words[0]} failed", detail=said or None))
        return done.out
