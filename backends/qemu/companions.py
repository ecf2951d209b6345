"""APPLY and OBSERVE: a VM's processes, QEMU and those beside it: started so that they outlive us, recognised, ended.

Each holds a flock on a file of its own (it inherits the descriptor, and so does whatever it starts), so the kernel
answers whether one is alive, and which processes that are: whatever became of us, of the record, or of a pid.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from reconciler.problems import Problem, Refused, Unreachable

_KILLING = 5.0
"""Seconds to end when made to."""
_POLL = 0.005
_children: set[int] = set()
"""Those that this very process started: when they end they stay zombies until somebody asks for their exit status."""


@dataclass(frozen=True, slots=True)
class Companion:
    """One such process. alive: the file whose flock it holds; log: its stdout and stderr; what: in words, for people"""

    alive: Path
    log: Path
    what: str
    subject: str


def spawn(
    one: Companion,
    argv: Sequence[str],
    inherit: Sequence[int],
    uid: int | None = None,
    umask: int = 0o177,
    groups: Sequence[int] = (),
    cwd: Path = Path("/"),
) -> int:
    """Start it; its pid. The caller holds the VM's lock. Refused when one is alive already: never a second one.

    uid: the user and group that it runs as, in no other groups than ``groups``; None: as ourselves.
    cwd: the folder it starts in, which that user need not be able to reach by itself
    """
    reap()
    with hold(one.alive, one.subject, one.what) as alive, one.log.open("wb") as log:
        one.log.chmod(0o600)
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(*inherit, alive),
            start_new_session=True,
            cwd=cwd,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            umask=umask,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else list(groups),
        )
    let_outlive(child)
    return child.pid


def end(one: Companion, patience: float = 0.0) -> None:
    """No process of it any more: by itself within ``patience`` seconds, else by force. Unreachable when it stays."""
    if is_held(one.alive) and not is_gone(one.alive, patience):
        _kill(one.alive)
        if not is_gone(one.alive, _KILLING):
            hint = f"`fuser {one.alive}` says which"
            raise Unreachable(Problem(f"its {one.what} does not end even by force", subject=one.subject, hint=hint))
    reap()


def is_gone(alive: Path, timeout: float) -> bool:
    """Whether nobody holds it, within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while is_held(alive):
        if time.monotonic() >= deadline:
            return False
        Event().wait(_POLL)
    return True


def last_words(one: Companion, limit: int = 2000) -> str:
    """What it said last."""
    try:
        return one.log.read_bytes()[-limit:].decode("utf-8", "replace")
    except OSError:
        return ""


def let_outlive(child: subprocess.Popen[bytes]) -> None:
    """It is meant to outlive us, and its Popen: no warning when that goes."""
    child.returncode = 0
    _children.add(child.pid)


def reap() -> None:
    """Take leave of those we started that have ended."""
    for pid in list(_children):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            ended = True
        if ended:
            _children.discard(pid)


def is_held(alive: Path) -> bool:
    """Whether a process that holds it is alive (stopped by a signal counts): the kernel's own answer."""
    try:
        handle = os.open(alive, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at the same time do not take each other for a holder.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def hold(alive: Path, subject: str, what: str) -> Iterator[int]:
    """A descriptor that holds the lock, to be inherited. Refused when ``what`` of this VM is alive."""
    handle = os.open(alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(handle, f"a {what} of it is alive: never a second one", subject)
        yield handle
    finally:
        os.close(handle)


def holders(alive: Path) -> list[int]:
    """The pids of those that hold it. One that only asks is none of them."""
    try:
        there = alive.stat()
    except FileNotFoundError:
        return []
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _holds(pid, alive.name, (there.st_dev, there.st_ino))]


def _holds(pid: int, name: str, inode: tuple[int, int]) -> bool:
    with suppress(OSError):  # it is gone, or not ours to look at
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if not os.readlink(link).endswith(f"/{name}"):
                continue
            file = link.stat()
            info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text(encoding="ascii")
            if (file.st_dev, file.st_ino) == inode and "FLOCK  ADVISORY  WRITE" in info:
                return True
    return False


def _kill(alive: Path) -> None:
    inode = alive.stat().st_dev, alive.stat().st_ino
    for pid in holders(alive):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                # Only now: what the pidfd stands for can no longer change.
                if _holds(pid, alive.name, inode):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _take(handle: int, refusal: str, subject: str) -> None:
    """Against those who only ask (they hold it for microseconds) we try again; against a holder we do not."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK or time.monotonic() > deadline:
                raise Refused(Problem(refusal, subject=subject)) from error
            Event().wait(_POLL)
        else:
            return
