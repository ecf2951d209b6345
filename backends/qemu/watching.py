"""OBSERVE, told: a QEMU that ends (pidfd) or has something happen to it (events) is seen within a millisecond; VMs
that others start, within a poll.

Each VM has a monitor for that alone, which the watch of its environment listens to. One that was started before there
was such a monitor is only told by its end.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.backends.qemu import process, records
from reconciler.backends.qemu.events import Listener
from reconciler.backends.qemu.folders import Folder, all_folders
from reconciler.backends.qemu.records import Process
from reconciler.model import ResourceId
from reconciler.ports import Settings, Stop, Wake
from reconciler.problems import BackendError

POLL = 2.0
"""Seconds between two looks at the records: what another command has started or changed."""
OFTEN = 5
"""How often within a poll a VM may be told of at once: a guest can cause events at will, and looking costs."""


@dataclass(slots=True)
class _Known:
    """One VM: its record as it was last seen (inode and time), the process that is watched, whom we listen to.

    since: when we began to count how often it was told of; owed: once more, at the next poll
    """

    stamp: tuple[int, int] = (0, 0)
    process: Process | None = None
    handle: int | None = None
    ours: bool = False
    listener: Listener | None = None
    since: float = 0.0
    count: int = 0
    owed: bool = False

    def may_tell(self, now: float) -> bool:
        """Whether what it says is told at once; else it is owed."""
        if now >= self.since + POLL:
            self.since, self.count = now, 0
        self.count += 1
        self.owed = self.count > OFTEN
        return not self.owed

    def settle(self, now: float) -> bool:
        """Whether what is owed is to be told now."""
        if not self.owed or now < self.since + POLL:
            return False
        if self.listener is not None:
            self.listener.discard()
        self.owed = False
        return True

    def close(self) -> None:
        """Watch and hear it no longer."""
        handle, self.handle = self.handle, None
        if handle is not None:
            os.close(handle)
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.close()


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
                one.close()

    def _wait(self, stop: Stop) -> None:
        poll = select.poll()
        ends = {one.handle: name for name, one in self._known.items() if one.handle is not None}
        heard = {one.listener.fileno(): name for name, one in self._known.items() if one.listener and not one.owed}
        for handle in (stop.fileno(), self.nudge, *ends, *heard):
            poll.register(handle, select.POLLIN)
        told = {handle for handle, _ in poll.poll(POLL * 1000)}
        now = time.monotonic()
        news = {heard[handle] for handle in told & heard.keys() if self._has_news(self._known[heard[handle]], now)}
        ended = {ends[handle] for handle in told & ends.keys()}
        if ended | news:
            self.wake({_id(name) for name in ended | news})
        for name in ended:
            self._known[name].close()
        if ended:
            process.reap()
        if self.nudge in told:
            with suppress(BlockingIOError):
                os.eventfd_read(self.nudge)

    def _has_news(self, one: _Known, now: float) -> bool:
        """What one VM says, and whether that is to be told now."""
        listener = one.listener
        if listener is None:
            return False
        news = listener.receive()
        if listener.closed:
            listener.close()
            one.listener = None
        return news and one.may_tell(now)

    def _look(self) -> None:
        folders = {folder.name: folder for folder in all_folders(self.settings.state, self.settings.runtime)}
        now = time.monotonic()
        moved = {name for name in self._known if name not in folders}
        for name in moved:
            self._known.pop(name).close()
        for name, folder in folders.items():
            fresh = name not in self._known
            one = self._known.setdefault(name, _Known())
            if (stamp := _stamp(folder)) != one.stamp:
                one.stamp = stamp
                self._follow(folder, one)
                moved |= set() if fresh else {name}
            if one.ours and one.handle is not None and one.listener is None:
                with suppress(BackendError, OSError):  # not there yet, or never, or we have too much open: tried again
                    one.listener = Listener(folder.events, str(_id(name)))
            if one.settle(now):
                moved.add(name)
        if moved:
            self.wake({_id(name) for name in moved})

    def _follow(self, folder: Folder, one: _Known) -> None:
        """Watch the process that the record names by now. One that is gone already is told at once."""
        try:
            record = records.load(folder)
        except BackendError:
            return  # damaged: whoever looks will say so
        current = record.process if record else None
        one.ours = record is not None and record.environment == self.settings.environment
        if one.listener is not None and not one.ours:
            one.listener.close()
            one.listener = None
        if current == one.process and one.handle is not None:
            return
        one.close()
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


def _id(name: str) -> ResourceId:
    return ResourceId("VirtualMachine", name)
