"""OBSERVE and APPLY, where a VM's own files are: one folder for what lasts, one for its sockets.

    <state>/vms/<name>/      record.json · alive · serial.log · qemu.log · seed.iso · firmware.vars
                             swtpm.alive · swtpm.log · forwarder.alive · forwarder.log · boot/ · disks/ · sticks/ · tpm/
    <runtime>/vms/<name>/    qmp.sock (ours) · people.sock (QMP for people) · events.sock (for a watch)
                             serial.sock · agent.sock · forwarder.sock

Folders are 0700, files 0600. Whoever changes anything in it holds the flock on the folder itself (``locked``).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from reconciler.paths import private_dir
from reconciler.problems import Locked, Problem, Refused

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LOCK_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Folder:
    """The places of one VM. Knows where things are, not whether they are there."""

    name: str
    path: Path
    sockets: Path

    @property
    def record(self) -> Path:
        """What we know of the VM that no QEMU can tell."""
        return self.path / "record.json"

    @property
    def alive(self) -> Path:
        """flock held by the QEMU process itself, from before its first instruction to its last."""
        return self.path / "alive"

    @property
    def serial_log(self) -> Path:
        """Everything the guest ever said on its serial console."""
        return self.path / "serial.log"

    @property
    def qemu_log(self) -> Path:
        """stdout and stderr of the last QEMU."""
        return self.path / "qemu.log"

    @property
    def seed(self) -> Path:
        """The cloud-init seed."""
        return self.path / "seed.iso"

    @property
    def firmware_vars(self) -> Path:
        """The UEFI variables of this VM."""
        return self.path / "firmware.vars"

    @property
    def tpm(self) -> Path:
        """What its TPM keeps."""
        return self.path / "tpm"

    @property
    def tpm_alive(self) -> Path:
        """flock held by its swtpm."""
        return self.path / "swtpm.alive"

    @property
    def tpm_log(self) -> Path:
        """stdout and stderr of the last swtpm."""
        return self.path / "swtpm.log"

    @property
    def kernel(self) -> Path:
        """The kernel that it boots, if any: the VM's own name for it."""
        return self.path / "boot" / "kernel"

    @property
    def kernel_elf(self) -> Path:
        """The same kernel, unpacked: what a BIOS machine boots faster from."""
        return self.path / "boot" / "kernel.elf"

    @property
    def initrd(self) -> Path:
        """The initramfs that belongs to the kernel."""
        return self.path / "boot" / "initrd"

    @property
    def qmp(self) -> Path:
        """Our monitor."""
        return self.sockets / "qmp.sock"

    @property
    def people(self) -> Path:
        """The monitor for people and other programs: a QMP socket serves one client at a time."""
        return self.sockets / "people.sock"

    @property
    def events(self) -> Path:
        """The monitor on which QEMU tells what happens to it: for the watch of its environment."""
        return self.sockets / "events.sock"

    @property
    def serial(self) -> Path:
        """The serial console."""
        return self.sockets / "serial.sock"

    @property
    def agent(self) -> Path:
        """The channel to the guest agent."""
        return self.sockets / "agent.sock"

    def disk(self, name: str, format: str) -> Path:
        """A disk that belongs to the VM."""
        return self.path / "disks" / f"{name}.{format}"

    def disks(self) -> list[Path]:
        """The files of every disk that belongs to it."""
        folder = self.path / "disks"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def stick(self, id: str) -> Path:
        """What is on an emulated USB stick."""
        return self.path / "sticks" / f"{id}.raw"

    def sticks(self) -> list[Path]:
        """The files of all of them."""
        folder = self.path / "sticks"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def base(self, name: str) -> Path:
        """What an overlay stands on: a link to the image's file, so that the image may go and the VM stays."""
        return self.path / "disks" / f"{name}.base"

    def exists(self) -> bool:
        """Whether there is anything of this VM."""
        return self.path.is_dir()

    def make(self) -> None:
        """Both folders, private."""
        private_dir(self.path.parent)
        private_dir(self.path)
        private_dir(self.sockets.parent)
        private_dir(self.sockets)

    def clear(self) -> None:
        """All but the record. The caller knows that no QEMU of it is alive."""
        self.remove_sockets()
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != self.record:
                entry.unlink()

    def remove(self) -> None:
        """All of it. The record goes last: while it stands, the next pass knows that there is something to delete."""
        self.clear()
        self.record.unlink(missing_ok=True)
        self.path.rmdir()

    def remove_sockets(self) -> None:
        """The folder in the runtime folder. The caller knows that no QEMU of it is alive."""
        shutil.rmtree(self.sockets, ignore_errors=True)


def folder_of(state: Path, runtime: Path, name: str) -> Folder:
    """The folder of the VM called ``name``; Refused when that is not a name (it becomes part of paths)."""
    if not _NAME.fullmatch(name):
        raise Refused(Problem(f'expected a name of a-z, 0-9 and "-", got "{name}"', subject=f"VirtualMachine/{name}"))
    return Folder(name, state / "vms" / name, runtime / "vms" / name)


def all_folders(state: Path, runtime: Path) -> list[Folder]:
    """Every VM folder that there is, by name."""
    vms = state / "vms"
    if not vms.is_dir():
        return []
    names = sorted(entry.name for entry in vms.iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name))
    return [folder_of(state, runtime, name) for name in names]


@contextmanager
def locked(path: Path, subject: str, patience: float) -> Iterator[None]:
    """Hold the lock on the folder at ``path`` (made when it is not there). Locked after ``patience`` seconds.

    The folder may be deleted and made anew while we wait: only a lock on the one that is *now* at ``path`` counts.
    """
    deadline = time.monotonic() + patience
    while True:
        private_dir(path.parent)
        try:
            private_dir(path)
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # deleted at this very moment
        try:
            _flock(handle, deadline, subject)
            if _is_at(handle, path):
                yield
                return
        finally:
            os.close(handle)


def _flock(handle: int, deadline: float, subject: str) -> None:
    # flock knows no deadline; and a signal handler would have to be the main thread's.
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                hint = "wait for the other command to end"
                raise Locked(Problem("another command is changing it", subject=subject, hint=hint)) from None
            Event().wait(_LOCK_POLL)
        else:
            return


def _is_at(handle: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
