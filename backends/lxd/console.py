"""What a guest said on its console: for ``ready.log``, ``logs`` and the last words of one that failed.

Reading the console log of a running container takes it away: LXD's next answer starts where this one ended. So what we
read is kept in a file of our own, and what people see is that file and the rest together.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.paths import private_dir
from reconciler.problems import Refused

KEPT = 1 << 20
"""Bytes of a console log that are kept, counted from its end."""

_TAIL = 20


@dataclass(frozen=True, slots=True)
class Console:
    """The console log of one container. file: where we keep what has been read of it."""

    client: Client
    name: str
    file: Path

    @classmethod
    def of(cls, client: Client, state: Path, name: str) -> Console:
        """The console of that container, kept below the state folder."""
        address = client.address
        place = hashlib.sha256(f"{address}\0{address.project}\0{name}".encode()).hexdigest()[:16]
        return cls(client, name, state / "consoles" / f"{place}.log")

    def read(self, within: Deadline, running: bool) -> bytes:
        """All of it, as far as it is known. running: whether the container is (then reading takes away)."""
        with self._kept() as file:
            before = file.read()
            fresh = self._quiet("console", within=within)
            if not running or (fresh and before.endswith(fresh)):
                return before if before.endswith(fresh) else before + fresh
            if fresh:
                file.seek(0)
                file.truncate()
                file.write((before + fresh)[-KEPT:])
            return before + fresh

    def forget(self) -> None:
        """A new boot, or no such container any more: what was said before does not count."""
        self.file.unlink(missing_ok=True)

    def last_words(self) -> str:
        """The end of the console log and of LXC's log, for people."""
        within = Deadline.after(10)
        said = tail(self.read(within, running=False))
        logged = self._quiet("logs", "lxc.log", within=within)
        log = tail(logged, keep=_TAIL // 2, skip=_NOISE)
        if not (said or log):
            log = tail(logged, keep=_TAIL // 2)  # noise mostly, and all that there is
        parts = [f"console:\n{said}" if said else "", f"lxc.log:\n{log}" if log else ""]
        return "\n".join(part for part in parts if part)

    def _quiet(self, *path: str, within: Deadline) -> bytes:
        try:
            return self.client.raw("instances", self.name, *path, within=within)
        except Refused:
            return b""  # LXD answers 404 or 500 where nothing has been said (yet)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[BufferedRandom]:
        """Our file, held against other readers: two at once would each get half."""
        private_dir(self.file.parent)
        with self.file.open("a+b") as file:
            self.file.chmod(0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file


# What LXC logs about every container that is going down, whatever brought it down.
_NOISE = ("WARN", "get_state", "Connection reset by peer")


def tail(data: bytes, keep: int = _TAIL, skip: tuple[str, ...] = ()) -> str:
    """The last lines of a log, without what a terminal would not show."""
    lines = data.decode("utf-8", "replace").replace("\r", "").splitlines()
    told = [line for line in lines if line.strip() and not any(noise in line for noise in skip)]
    return "\n".join("".join(letter for letter in line if letter.isprintable()) for line in told[-keep:])
