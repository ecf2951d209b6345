"""APPLY: CPUs and memory of a guest that is up. Not of one that boots: only a system that runs can follow."""

from __future__ import annotations

from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.plugging import memory, processors
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.records import Record
from reconciler.diff import is_ignored
from reconciler.model import Spec
from reconciler.ports import Tell


def resize(folder: Folder, record: Record, spec: Spec, tell: Tell, patience: float) -> None:
    """As many CPUs and as much memory as are wanted; what the manifest leaves to others stays as it is.

    patience: seconds that the guest may stand still. Refused or GuestFailed when it does not follow.
    """
    ignored = tuple(str(path) for path in spec.get("ignore", ()))
    with Monitor(folder.qmp, record.id) as monitor:
        live = Live(folder, monitor, record, spec, (), tell, booted=True)
        if not is_ignored("cpus.count", ignored):
            processors.converge(live, patience)
        if not is_ignored("memory.size", ignored):
            memory.converge(live, patience)
