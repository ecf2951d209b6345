"""APPLY and OBSERVE, the virtiofsds: started for one share of one VM, recognised beyond doubt, ended for good.

    <state>/vms/<vm>/shares/<name>/   alive · served · share.json · virtiofsd.log · root/ (its own folder)

As with a QEMU, the processes themselves hold flocks, so the kernel tells whether they live: ``alive`` is the relay's,
which speaks with QEMU, and ``served`` the virtiofsd's behind it. Both end by themselves when QEMU lets go of the line;
it is ours until QEMU has it, so that whoever dies, nobody stays behind.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from reconciler.backends.qemu import process
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.shares import chamber, program, relay
from reconciler.backends.qemu.shares.source import identity
from reconciler.model import Spec
from reconciler.paths import private_dir, write_private
from reconciler.problems import Problem, Refused, Unreachable

_BEGINNING = 15.0
"""Seconds for a daemon to say that it listens."""
_ENDING = 2.0
"""Seconds for it to notice that its QEMU has let go of it."""
_POLL = 0.005
_LISTENS = re.compile(rb"vhost-user socket connection|onnected")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon of one share is kept. Knows where things are, not whether they are there."""

    folder: Folder
    name: str

    @property
    def path(self) -> Path:
        """All of it."""
        return self.folder.path / "shares" / self.name

    @property
    def alive(self) -> Path:
        """flock held by the relay, and by everything that it starts."""
        return self.path / "alive"

    @property
    def served(self) -> Path:
        """flock held by the daemon that was there from the beginning."""
        return self.path / "served"

    @property
    def facts(self) -> Path:
        """With what it was started."""
        return self.path / "share.json"

    @property
    def log(self) -> Path:
        """stdout and stderr of the last one."""
        return self.path / "virtiofsd.log"

    @property
    def root(self) -> Path:
        """Where the folder is mounted; everybody else sees an empty folder there."""
        return self.path / "root"


def start(place: Place, source: int, part: Spec, subject: str) -> socket.socket:
    """A daemon that serves the folder behind descriptor ``source``, and the line to it, for QEMU. None other lives.

    Refused with the daemon's own words when it does not come up.
    """
    chosen = program.find()
    if chosen is None:
        raise Refused(Problem(f"shares.{place.name}: {program.lacking()}", subject=subject, hint=program.INSTALL))
    for path in (place.path.parent, place.path, place.root):
        private_dir(path)
    process.reap()
    ours, its = socket.socketpair()
    try:
        with its, _lock(place.alive, place, subject) as alive, _lock(place.served, place, subject) as served:
            argv = chosen.arguments(str(place.root), bool(part["readOnly"]))
            _spawn(place, argv, {"line": its.fileno(), "served": served, "source": source}, alive, part)
        _write_facts(place, source, part)
        _await_listening(place, subject)
    except BaseException:
        ours.close()
        end(place, subject, patience=0.0)
        raise
    return ours


def is_alive(place: Place) -> bool:
    """Whether somebody answers QEMU and the guest, were it with errors: the kernel's own answer."""
    return _is_held(place.alive)


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def is_whole(place: Place, part: Spec) -> bool:
    """Whether its daemon lives, and serves the folder that its path leads to today."""
    try:
        facts = json.loads(place.facts.read_bytes())
        there = os.stat(part["source"], follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return _is_held(place.served) and facts["folder"] == [there.st_dev, there.st_ino]


def end(place: Place, subject: str, patience: float = _ENDING) -> None:
    """Wait until it has ended, by force after ``patience`` seconds; then nothing is left of it. QEMU has let go."""
    if is_alive(place) and not _is_gone(place, patience):
        for pid in holders(place.alive):
            with _opened(pid) as handle:
                # Only now: what the pidfd stands for can no longer change.
                if handle is not None and pid in holders(place.alive, (pid,)):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not _is_gone(place, 5.0):
            what = f"shares.{place.name}: its virtiofsd does not end even by force"
            raise Unreachable(Problem(what, subject=subject, hint=f"`fuser {place.alive}` says which"))
    process.reap()
    shutil.rmtree(place.path, ignore_errors=True)


def sweep(folder: Folder) -> None:
    """End the daemons of all shares. The caller knows that no QEMU of the VM lives."""
    shares = folder.path / "shares"
    if shares.is_dir():
        for path in shares.iterdir():
            end(Place(folder, path.name), f"VirtualMachine/{folder.name}")
        shutil.rmtree(shares, ignore_errors=True)


def last_words(place: Place, limit: int = 2000) -> str:
    """What it said last."""
    with suppress(OSError):
        return place.log.read_bytes()[-limit:].decode("utf-8", "replace")
    return ""


def died(place: Place, subject: str) -> Refused:
    """What to say of one that ended by itself."""
    what = f"shares.{place.name}: its virtiofsd ended at once"
    hint = None if os.geteuid() == 0 else "as an ordinary user it needs user namespaces; as root it does not"
    return Refused(Problem(what, subject=subject, detail=last_words(place) or None, hint=hint))


def _spawn(place: Place, argv: list[str], handles: dict[str, int], alive: int, part: Spec) -> None:
    python = [sys.executable, "-I", "-S"]
    shut_in = {"source": handles["source"], "target": str(place.root), "readOnly": part["readOnly"], "argv": argv}
    wanted = {**handles, "folder": str(place.path), "start": [*python, chamber.__file__, shut_in]}
    with place.log.open("wb") as log:
        place.log.chmod(0o600)
        child = subprocess.Popen(
            [*python, relay.__file__, json.dumps(wanted)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(*handles.values(), alive),
            start_new_session=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            umask=0o077,
        )
    process.let_outlive(child)


def _write_facts(place: Place, source: int, part: Spec) -> None:
    facts = {"source": part["source"], "readOnly": part["readOnly"], "folder": identity(source)}
    write_private(place.facts, json.dumps(facts).encode())


def _await_listening(place: Place, subject: str) -> None:
    """QEMU asks the daemon many things at once, and does nothing else until it has its answers: not before it can."""
    deadline = time.monotonic() + _BEGINNING
    while not _LISTENS.search(place.log.read_bytes()):
        if not is_alive(place):
            raise died(place, subject)
        if time.monotonic() > deadline:
            what = f"shares.{place.name}: its virtiofsd is not ready after {_BEGINNING:g} s"
            raise Refused(Problem(what, subject=subject, detail=last_words(place) or None))
        Event().wait(_POLL)


def _is_gone(place: Place, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while is_alive(place):
        if time.monotonic() >= deadline:
            return False
        Event().wait(_POLL)
    return True


def holders(path: Path, among: tuple[int, ...] | None = None) -> list[int]:
    """Processes of other sessions than ours that have the lock's file open."""
    try:
        lock = path.stat()
    except FileNotFoundError:
        return []
    pids = among or tuple(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _holds(pid, (lock.st_dev, lock.st_ino))]


def _holds(pid: int, lock: tuple[int, int]) -> bool:
    try:
        if os.getsid(pid) == os.getsid(0):
            return False
        return any(_is_file(f"/proc/{pid}/fd/{number}", lock) for number in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _is_file(path: str, file: tuple[int, int]) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == file


@contextmanager
def _opened(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _lock(path: Path, place: Place, subject: str) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(handle, place, subject)
        yield handle
    finally:
        os.close(handle)


def _take(handle: int, place: Place, subject: str) -> None:
    """Against those who only ask we try again; against a daemon we do not."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK or time.monotonic() > deadline:
                what = f"shares.{place.name}: a virtiofsd of it is alive"
                raise Refused(Problem(what, subject=subject)) from error
            Event().wait(_POLL)
        else:
            return
