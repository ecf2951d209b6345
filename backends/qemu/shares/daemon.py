"""APPLY and OBSERVE, the virtiofsds: started for one share of one VM, recognised beyond doubt, ended for good.

    <state>/vms/<vm>/shares/<name>/   alive · served · share.json · virtiofsd.log · root/ (its own folder)

As with a QEMU, the processes themselves hold flocks, so the kernel tells whether they live: ``alive`` is the relay's,
which speaks with QEMU, and ``served`` the virtiofsd's behind it. Both end by themselves when QEMU lets go of the line;
it is ours until QEMU has it, so that whoever dies, nobody stays behind.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from reconciler.backends.qemu import companions
from reconciler.backends.qemu.companions import Companion
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.shares import program
from reconciler.backends.qemu.shares.source import identity
from reconciler.model import Spec
from reconciler.paths import private_dir, write_private
from reconciler.problems import Problem, Refused

_BEGINNING = 15.0
"""Seconds for a daemon to say that it listens."""
_ENDING = 2.0
"""Seconds for it to notice that its QEMU has let go of it."""
_POLL = 0.005
_START = Path(__file__).with_name("start.py")
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
    ours, its = socket.socketpair()
    try:
        with its, companions.hold(place.served, subject, f"virtiofsd of shares.{place.name}") as served:
            argv = chosen.arguments(str(place.root), bool(part["readOnly"]))
            _spawn(place, argv, {"line": its.fileno(), "served": served, "source": source}, subject, part)
        _write_facts(place, source, part)
        _await_listening(place, subject)
    except BaseException:
        ours.close()
        end(place, subject, patience=0.0)
        raise
    return ours


def is_alive(place: Place) -> bool:
    """Whether somebody answers QEMU and the guest, were it with errors: the kernel's own answer."""
    return companions.is_held(place.alive)


def is_whole(place: Place, part: Spec) -> bool:
    """Whether its daemon lives, and serves the folder that its path leads to today."""
    try:
        facts = json.loads(place.facts.read_bytes())
        there = os.stat(part["source"], follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return companions.is_held(place.served) and facts["folder"] == [there.st_dev, there.st_ino]


def end(place: Place, subject: str, patience: float = _ENDING) -> None:
    """Wait until it has ended, by force after ``patience`` seconds; then nothing is left of it. QEMU has let go."""
    companions.end(_companion(place, subject), patience)
    shutil.rmtree(place.path, ignore_errors=True)


def sweep(folder: Folder) -> None:
    """End the daemons of all shares. The caller knows that no QEMU of the VM lives."""
    shares = folder.path / "shares"
    if shares.is_dir():
        for path in shares.iterdir():
            end(Place(folder, path.name), f"VirtualMachine/{folder.name}")
        shutil.rmtree(shares, ignore_errors=True)


def last_words(place: Place) -> str:
    """What it said last."""
    return companions.last_words(_companion(place, ""))


def died(place: Place, subject: str) -> Refused:
    """What to say of one that ended by itself."""
    what = f"shares.{place.name}: its virtiofsd ended at once"
    hint = None if os.geteuid() == 0 else "as an ordinary user it needs user namespaces; as root it does not"
    return Refused(Problem(what, subject=subject, detail=last_words(place) or None, hint=hint))


def _companion(place: Place, subject: str) -> Companion:
    return Companion(place.alive, place.log, f"virtiofsd (shares.{place.name})", subject)


def _spawn(place: Place, argv: list[str], handles: dict[str, int], subject: str, part: Spec) -> None:
    shut_in = {"source": handles["source"], "target": str(place.root), "readOnly": part["readOnly"], "argv": argv}
    wanted = {**handles, "folder": str(place.path), "chamber": shut_in}
    command = [sys.executable, "-I", "-S", str(_START), json.dumps(wanted)]
    companions.spawn(_companion(place, subject), command, tuple(handles.values()), umask=0o077)


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
