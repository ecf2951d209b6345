"""APPLY: a VM's TPM: a swtpm beside its QEMU. They share a pair of sockets and nothing else; with QEMU's end it ends.

It runs as a user of its own, too: what it keeps is secret from the QEMU that may have been broken into. Its folder is
its working directory: that is also how one that hangs is recognised.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reconciler.backends.qemu import process
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
    if not folder.tpm.is_dir():
        return
    process.reap()
    for pid in _of(folder):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                # Only now: what the pidfd stands for can no longer change.
                if _is_of(pid, folder) and not _ends(handle, _ENDING):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    _ends(handle, _ENDING)
            finally:
                os.close(handle)
    process.reap()


def _spawn(folder: Folder, line: int, user: int | None) -> None:
    command = [PROGRAM, "socket", "--tpm2", "--ctrl", f"type=unixio,clientfd={line}", "--tpmstate", "dir=.,mode=0600"]
    with folder.tpm_log.open("wb") as log:
        folder.tpm_log.chmod(0o600)
        child = subprocess.Popen(
            [*command, "--flags", "startup-clear", "--terminate"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(line,),
            start_new_session=True,
            cwd=folder.tpm,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            umask=0o177,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    process.let_outlive(child)


def _of(folder: Folder) -> list[int]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _is_of(pid, folder)]


def _is_of(pid: int, folder: Folder) -> bool:
    try:
        same = os.path.samefile(f"/proc/{pid}/cwd", folder.tpm)
        return same and Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == PROGRAM
    except OSError:
        return False


def _ends(handle: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(int(timeout * 1000)))
