"""APPLY and OBSERVE, the QEMU process: started as a user of its own, recognised beyond doubt, ended for good.

Two facts carry everything here. The process itself holds a flock on the VM's ``alive`` file (it inherits the
descriptor), so the kernel answers whether one is alive, whatever became of us or of the record. And nothing is
signalled but through a pidfd, after start time and our uuid were compared: pids are used again.
"""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from reconciler.backends.qemu import companions
from reconciler.backends.qemu.companions import Companion
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.machine import SHUTDOWN
from reconciler.backends.qemu.records import Process, Record
from reconciler.problems import Interrupted, Problem, Unreachable

_BY_GUEST = "6"
"""QEMU's ShutdownCause for a guest that has powered itself off."""

reap, let_outlive = companions.reap, companions.let_outlive


def spawn(folder: Folder, argv: Sequence[str], inherit: Sequence[int], uid: int | None) -> Process:
    """Start a QEMU that outlives us. The caller holds the VM's lock and knows that no other QEMU of it is alive."""
    one = Companion(folder.alive, folder.qemu_log, "QEMU", f"VirtualMachine/{folder.name}")
    pid = companions.spawn(one, argv, inherit, uid, groups=kvm_groups())
    return Process(pid, _start_time(pid) or 0, _host_boot())


def is_alive(folder: Folder) -> bool:
    """Whether a QEMU of this VM is alive (stopped by a signal counts): the kernel's own answer."""
    return companions.is_held(folder.alive)


def find(folder: Folder, record: Record) -> Process | None:
    """The live QEMU of this VM, or None when there is none. Unreachable when one lives and cannot be identified."""
    if not is_alive(folder):
        return None
    if record.process and _is_ours(record.process, record.uuid):
        return record.process
    for pid in _pids():
        candidate = Process(pid, _start_time(pid) or 0, _host_boot())
        if _is_ours(candidate, record.uuid):
            return candidate
    if record.process:
        wait_gone(record.process, 2.0)  # it may be just about to be gone: its threads hold the lock a little longer
    if not is_alive(folder):
        return None
    raise Unreachable(
        Problem(
            "a process holds it that is not recognised",
            subject=record.id,
            hint=f"`fuser {folder.alive}` says which; end it if it should not be there",
        )
    )


def wait_gone(process: Process, timeout: float) -> bool:
    """Whether it has ended, with all its threads, within ``timeout`` seconds. Wakes up at once when it does."""
    with _opened(process) as handle:
        if handle is None:
            return True
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        gone = bool(poll.poll(max(0, int(timeout * 1000))))
    reap()
    return gone


def kill(process: Process, record: Record, timeout: float = 10.0) -> None:
    """End it by force, and wait until it is gone. Does nothing to a process that is not the VM's."""
    with _opened(process) as handle:
        if handle is not None and _is_ours(process, record.uuid):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    if not wait_gone(process, timeout):
        raise Unreachable(Problem(f"its QEMU (pid {process.pid}) does not end even by force", subject=record.id))


def last_words(folder: Folder, limit: int = 2000) -> str:
    """What QEMU itself said last."""
    return _tail(folder.qemu_log, 0, limit)


def shut_down_by_guest(folder: Folder) -> bool:
    """Whether the last QEMU ended because its guest had shut the machine down: it wrote that into its log."""
    said = re.findall(rf"{SHUTDOWN} reason=(\d+)", _tail(folder.qemu_log, 0, 2000))
    return bool(said) and said[-1] == _BY_GUEST


def serial_tail(folder: Folder, start: int, limit: int = 3000) -> str:
    """What the guest said last on its serial console since ``start`` (bytes)."""
    return _tail(folder.serial_log, start, limit)


@contextmanager
def watched(process: Process) -> Iterator[int]:
    """A pidfd of it, to be handed to whatever has to end with it. Interrupted when it has ended already."""
    with _opened(process) as handle:
        if handle is None:
            raise Interrupted(Problem(f"its QEMU (pid {process.pid}) has ended"))
        yield handle


def opened(process: Process) -> int | None:
    """A pidfd of it, which the caller closes: readable once it has ended. None when it has ended already."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if _is_same(process):  # only now: what the pidfd stands for can no longer change
        return handle
    os.close(handle)
    return None


@contextmanager
def _opened(process: Process) -> Iterator[int | None]:
    """A pidfd of it; None when it has ended, or when another process has its pid by now."""
    handle = opened(process)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _is_same(process: Process) -> bool:
    return process.boot == _host_boot() and _start_time(process.pid) == process.started


def _is_ours(process: Process, uuid: str) -> bool:
    """Whether it is the same, has not ended, and carries our uuid."""
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return _is_same(process) and (b"-uuid", uuid.encode()) in pairwise(words)


def _start_time(pid: int) -> int | None:
    """Clock ticks from the host's boot to the start of the process (or of the zombie that it is by now)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _host_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def kvm_groups() -> list[int]:
    """The group that may open /dev/kvm, where that is not root's own."""
    try:
        device = Path("/dev/kvm").stat()
    except OSError:
        return []
    return [device.st_gid] if device.st_gid != 0 and device.st_mode & 0o060 == 0o060 else []


def _tail(path: Path, start: int, limit: int) -> str:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(start, end), end - limit))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
