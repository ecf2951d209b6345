"""APPLY, from a running guest to none: asked politely first, then the plug, then force. Never hits a stranger."""

from __future__ import annotations

from reconciler.backends.qemu import process, tpm
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.forwarding import keeper
from reconciler.backends.qemu.grace import Grace
from reconciler.backends.qemu.plugging import devices
from reconciler.backends.qemu.records import Process, Record, save
from reconciler.backends.qemu.shares import daemon
from reconciler.ports import Tell
from reconciler.problems import BackendError, Interrupted, Problem, Unreachable


def stop(folder: Folder, record: Record, grace: Grace, tell: Tell, force: bool = False) -> Record:
    """No QEMU of it any more, and the record that says so. The caller holds the lock.

    Raises Unreachable when it does not answer and ``force`` is not given: what does not answer is not known.
    """
    running = process.find(folder, record)
    if running is not None:
        tell("stopping")
        if force:
            _force(folder, record, running, grace)
        elif not _politely(folder, record, running, grace):
            tell("it does not stop by itself: pulling the plug")
            _plug(folder, record, running, grace)
    devices.let_go(record)
    daemon.sweep(folder)
    tpm.end(folder)
    keeper.end(folder)
    folder.remove_sockets()
    return save(folder, record.but(process=None))


def _politely(folder: Folder, record: Record, running: Process, grace: Grace) -> bool:
    with Monitor(folder.qmp, record.id) as monitor:
        status = monitor.execute("query-status")["status"]
        if status in ("prelaunch", "shutdown", "internal-error", "guest-panicked", "io-error"):
            return False  # nobody is there to be asked
        if status in ("paused", "suspended"):
            monitor.execute("cont")
        try:
            with Agent(folder.agent, record.id, patience=3.0) as agent:
                agent.tell("guest-shutdown", {"mode": "powerdown"})
                # Not before: an agent whose channel is closed holds the guest's shutdown up for seconds.
                return process.wait_gone(running, grace.agent)
        except (Unreachable, Interrupted):
            monitor.execute("system_powerdown")
    return process.wait_gone(running, grace.button)


def _plug(folder: Folder, record: Record, running: Process, grace: Grace) -> None:
    """QEMU ends, and flushes what the guest had written: its word first, SIGKILL only when that fails."""
    patience = grace.plug
    try:
        with Monitor(folder.qmp, record.id) as monitor:
            monitor.execute("quit")
    except Interrupted:
        pass  # it may be gone already; what counts is whether it ends
    except Unreachable:
        patience = 0.0
    if not process.wait_gone(running, patience):
        process.kill(running, record)


def _force(folder: Folder, record: Record, running: Process, grace: Grace) -> None:
    try:
        _plug(folder, record, running, grace)
    except BackendError as error:
        if process.find(folder, record) is not None:
            raise Unreachable(Problem(f"it cannot be ended: {error.problem.summary}", subject=record.id)) from error
