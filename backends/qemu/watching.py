"""OBSERVE, told: a QEMU that ends is seen within a millisecond (pidfd); VMs that others start, within a poll.

Our monitor serves one client at a time, and whoever applies needs it: so it is not held to wait for events.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.backends.qemu import process, records
from reconciler.backends.qemu.folders import Folder, all_folders
from reconciler.backends.qemu.records import Process
from reconciler.model import ResourceId
from reconciler.ports import Settings, Stop, Wake
from reconciler.problems import BackendError

POLL = 2.0
"""Seconds between two looks at the records: what another command has started or changed."""


@dataclass(slots=True)
class _Known:
    """One VM: its record as it was last seen (inode and time), and the process that is watched."""

    stamp: tuple[int, int] = (0, 0)
    process: Process | None = None
    handle: int | None = None


@dataclass(slots=True)
class Watcher:
    """Every VM of one state folder. nudge: an eventfd; writing to it has the records looked at right now."""

    settings: Settings
    wake: Wake
    nudge: int
    _known: dict[str, _Known] = field(default_factory=dict)

    def run(self, stop: Stop) -> None:
        """Until ``stop``."""
        try:
            while not stop.is_set():
                self._look()
                self._wait(stop)
        finally:
            for one in self._known.values():
                _close(one)

    def _wait(self, stop: Stop) -> None:
        poll = select.poll()
        handles = {one.handle: name for name, one in self._known.items() if one.handle is not None}
        for handle in (stop.fileno(), self.nudge, *handles):
            poll.register(handle, select.POLLIN)
        told = [handle for handle, _ in poll.poll(POLL * 1000)]
        ended = [handles[handle] for handle in told if handle in handles]
        if ended:
            self.wake({_id(name) for name in ended})
            for name in ended:
                _close(self._known[name])
            process.reap()
        if self.nudge in told:
            with suppress(BlockingIOError):
                os.eventfd_read(self.nudge)

    def _look(self) -> None:
        folders = {folder.name: folder for folder in all_folders(self.settings.state, self.settings.runtime)}
        moved = {name for name in self._known if name not in folders}
        for name in moved:
            _close(self._known.pop(name))
        for name, folder in folders.items():
            fresh = name not in self._known
            one = self._known.setdefault(name, _Known())
            if (stamp := _stamp(folder)) != one.stamp:
                one.stamp = stamp
                self._follow(folder, one)
                moved |= set() if fresh else {name}
        if moved:
            self.wake({_id(name) for name in moved})

    def _follow(self, folder: Folder, one: _Known) -> None:
        """Watch the process that the record names by now. One that is gone already is told at once."""
        try:
            record = records.load(folder)
        except BackendError:
            return  # damaged: whoever looks will say so
        current = record.process if record else None
        if current == one.process and one.handle is not None:
            return
        _close(one)
        one.process = current
        if current is None:
            return
        one.handle = process.opened(current)
        if one.handle is None:
            self.wake({_id(folder.name)})


def _stamp(folder: Folder) -> tuple[int, int]:
    try:
        about = folder.record.stat()
    except OSError:
        return 0, 0
    return about.st_ino, about.st_mtime_ns


def _close(one: _Known) -> None:
    handle, one.handle = one.handle, None
    if handle is not None:
        os.close(handle)


def _id(name: str) -> ResourceId:
    return ResourceId("VirtualMachine", name)
