"""Behind ``hosts`` and ``top``: where VMs are reached, and what their QEMUs take of this host."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reconciler.backends.qemu import process
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.folders import Folder, all_folders
from reconciler.backends.qemu.readiness import told_addresses
from reconciler.backends.qemu.records import Process, Record, load
from reconciler.model import ResourceId
from reconciler.ports import Settings, Usage
from reconciler.problems import BackendError
from reconciler.reachable import neighbours, own_networks

_AGENT = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def addresses(settings: Settings) -> Mapping[ResourceId, Sequence[str] | None]:
    """Of VMs with a card of another type than ``user``, None where no agent answers; a user network is QEMU's own."""
    networks = own_networks()
    found: dict[ResourceId, Sequence[str] | None] = {}
    for folder, record, _ in _running(settings):
        nics = (record.applied or {}).get("nics", {})
        if not any(nic.get("type") != "user" for nic in nics.values()):
            continue
        try:
            with Agent(folder.agent, record.id, _AGENT) as agent:
                own: Sequence[str] | None = neighbours(told_addresses(agent), networks)
        except BackendError:
            own = None
        if own != []:
            found[ResourceId("VirtualMachine", folder.name)] = own
    return found


def usage(settings: Settings) -> Mapping[ResourceId, Usage]:
    """Processor time and memory of each QEMU; how many processes run in its guest only the guest knows."""
    return {
        ResourceId("VirtualMachine", folder.name): seen
        for folder, _, running in _running(settings)
        if (seen := _usage(running)) is not None
    }


def _usage(running: Process) -> Usage | None:
    try:
        words = (
            Path(f"/proc/{running.pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except OSError:
        return None  # it ended meanwhile
    cpu, memory = (int(words[11]) + int(words[12])) / _TICKS, int(words[21]) * _PAGE
    return Usage(cpu, memory, None, time.time() - uptime + running.started / _TICKS)


def _running(settings: Settings) -> Iterator[tuple[Folder, Record, Process]]:
    for folder in all_folders(settings.state, settings.runtime):
        try:
            record = load(folder)
            running = process.find(folder, record) if record is not None else None
        except BackendError:
            continue
        if record is not None and running is not None:
            yield folder, record, running
