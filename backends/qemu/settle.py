"""APPLY, from a guest that runs to one that is as wanted: its files, its commands, and the wait until it is ready.

What was done is written down only once it is done to the end, so that a crash in between means doing it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.qemu import hosting, provision, readiness
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.grace import GRACE
from reconciler.backends.qemu.inside import addresses
from reconciler.backends.qemu.inside.disks import is_done, mount_disks
from reconciler.backends.qemu.inside.mounting import mount_shares
from reconciler.backends.qemu.readiness import Guest
from reconciler.backends.qemu.records import Record, save
from reconciler.backends.qemu.shutdown import stop
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import GuestFailed

_FIRST_LOOK = 1.0
"""Seconds that a guest without conditions is watched for: long enough to see firmware give up."""


@dataclass(frozen=True, slots=True)
class Settling:
    """One guest, and what it is to become. payload: contents of files, as far as they are at hand; limit: seconds;
    state: our state folder; known_ready: it was seen ready since it started, and this apply does not touch that."""

    folder: Folder
    spec: Spec
    payload: Mapping[str, bytes]
    tell: Tell
    limit: float
    state: Path
    known_ready: bool = False


def is_settled(record: Record, spec: Spec) -> bool:
    """Whether nothing is left to do inside the guest."""
    started = record.settled == record.process or not provision.of_moment(spec, "start")
    files = provision.due_files(spec, record.files) or provision.gone_files(spec, record.files)
    return record.born and started and not files and not _changed_runs(record, spec) and is_done(record, spec)


def settle(settling: Settling, record: Record) -> Record:
    """Files put, commands run, conditions awaited; the record, which the caller writes down, says that they were.

    GuestFailed with the guest's last words when it does not come up.
    """
    spec = settling.spec
    try:
        record, touched = _work(settling, record)
        guest = Guest(settling.folder, record, record.id)
        ready = spec.get("ready", {})
        if settling.known_ready and not touched and record.settled == record.process:
            pass  # what was plugged in or out does not wait for a guest that may have troubles of its own
        elif readiness.is_wanted(ready):
            readiness.await_ready(guest, ready, False, settling.tell, settling.limit)
        elif record.settled != record.process:
            readiness.watch(guest, _FIRST_LOOK)
    except GuestFailed:
        # A guest that panicked stays that way: the next apply is to find it down and boot it afresh.
        if readiness.is_lost(Guest(settling.folder, record, record.id)):
            stop(settling.folder, record, GRACE, settling.tell, force=True)
        raise
    addresses.pass_on(settling.folder, record, spec)
    return record.but(born=True, settled=record.process)


def _work(settling: Settling, record: Record) -> tuple[Record, bool]:
    """What is due inside; and whether files or commands may have changed how the guest is."""
    spec = settling.spec
    files = provision.due_files(spec, record.files)
    runs = due_runs(record, spec, bool(files))
    record = mount_disks(Guest(settling.folder, record, record.id), spec, settling.tell, settling.limit)
    guest = Guest(settling.folder, record, record.id)
    mount_shares(guest, spec, settling.tell, settling.limit)
    record = hosting.trust(guest, spec, settling.state, settling.tell, settling.limit)
    gone = provision.gone_files(spec, record.files)
    if files or runs or gone:
        timeout = spec.get("ready", {}).get("timeout", readiness.TIMEOUT)
        readiness.await_ready(guest, {"guestAgent": True, "timeout": timeout}, True, settling.tell, settling.limit)
        provision.take_files_away(settling.folder, record.id, gone, settling.tell)
        provision.put_files(settling.folder, record.id, files, settling.payload, settling.tell)
        provision.run_all(settling.folder, record.id, runs, settling.tell)
    touched = bool(files or runs or gone)
    record = record.but(files=dict(spec.get("files", {})), runs=tuple(spec.get("run", ())))
    return save(settling.folder, record) if touched else record, touched


def due_runs(record: Record, spec: Spec, files_changed: bool) -> list[Spec]:
    """The commands whose moment it is, in their order."""
    fresh = not record.born
    moments = {"create": fresh, "start": record.settled != record.process, "change": fresh or files_changed}
    changed = _changed_runs(record, spec)
    return [run for run in spec.get("run", ()) if moments[run["when"]] or run in changed]


def _changed_runs(record: Record, spec: Spec) -> list[Spec]:
    """Entries of moment ``change`` that were not there, or were different, when commands were run last."""
    return [run for run in provision.of_moment(spec, "change") if run not in record.runs]
