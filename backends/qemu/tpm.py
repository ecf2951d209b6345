"""APPLY: a VM's TPM: a swtpm beside its QEMU. They share a pair of sockets and nothing else; with QEMU's end it ends.

It runs as a user of its own, too: what it keeps is secret from the QEMU that may have been broken into.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.backends.qemu.companions import Companion, spawn
from reconciler.backends.qemu.companions import end as end_companion
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.records import Record
from reconciler.model import Spec
from reconciler.paths import private_dir
from reconciler.problems import Problem, Refused

PROGRAM = "swtpm"
_APART = 0x10000000
"""Below the users of the QEMUs, in the same order."""
_ENDING = 2.0
"""Seconds for it to notice that its QEMU is gone."""


def check(spec: Spec, subject: str) -> None:
    """Refused when a TPM is wanted and swtpm is not installed."""
    if spec.get("tpm") and shutil.which(PROGRAM) is None:
        hint = f"apt-get install {PROGRAM}, or `reconciler doctor --fix`"
        raise Refused(Problem(f"tpm: {PROGRAM} is not installed", subject=subject, hint=hint))


@contextmanager
def beside(folder: Folder, record: Record) -> Iterator[int]:
    """A swtpm that runs, with what it has kept of this VM; yields QEMU's end of the line to it."""
    check({"tpm": True}, record.id)
    end(folder)
    user = None if record.uid is None else record.uid - _APART
    private_dir(folder.tpm)
    if user is not None:
        os.chown(folder.tpm, user, user)
    ours, its = socket.socketpair()
    with ours:
        with its:
            _spawn(folder, its.fileno(), user)
        yield ours.fileno()


def end(folder: Folder) -> None:
    """Wait until that of a QEMU that is gone is gone, too; by force if it takes too long."""
    end_companion(_companion(folder), _ENDING)


def _companion(folder: Folder) -> Companion:
    return Companion(folder.tpm_alive, folder.tpm_log, PROGRAM, f"VirtualMachine/{folder.name}")


def _spawn(folder: Folder, line: int, user: int | None) -> None:
    """In its folder: it may not go through those above it."""
    command = [PROGRAM, "socket", "--tpm2", "--ctrl", f"type=unixio,clientfd={line}", "--tpmstate", "dir=.,mode=0600"]
    spawn(_companion(folder), [*command, "--flags", "startup-clear", "--terminate"], (line,), user, cwd=folder.tpm)
