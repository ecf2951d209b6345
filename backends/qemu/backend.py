"""The QEMU backend as the engine sees it: VirtualMachine, Disk and Image (of type virtual-machine) on this host."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from reconciler.backends.qemu.effects import TABLE
from reconciler.backends.qemu.grace import GRACE, Grace
from reconciler.effects import Table
from reconciler.model import QEMU, Condition, Desired, Observed, ResourceId, Snapshot, Step
from reconciler.ports import Call, GuestFiles, Settings, Stop, Tell, Usage, Wake
from reconciler.problems import Locked, Problem, Refused
from reconciler.sockets import Socket


class QemuBackend:
    """Satisfies ports.Backend and ports.Guests. Holds no connection: every call looks afresh.

    grace: how long a guest is waited for when it is to go down.
    """

    announces = False

    def __init__(self, settings: Settings, grace: Grace = GRACE) -> None:
        self.settings = settings
        self.grace = grace
        self.name = QEMU
        self._nudge = -1

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        """Every VM, disk and image of ours (or ``only`` these), as they are."""
        from reconciler.backends.qemu.survey import survey

        with _files_named():
            return Snapshot(self.name, time.time(), survey(self.settings, only))

    def effects(self) -> Table:
        """The same for every QEMU that we support."""
        return TABLE

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        """Carry out one step; coming again after a crash finishes it."""
        from reconciler.backends.qemu.errands import carry_out, machines

        try:
            with _files_named(step.id):
                carry_out(machines(self.settings, self.grace), step, desired, tell)
        finally:
            if self._nudge >= 0:
                os.eventfd_write(self._nudge, 1)

    def watch(self, wake: Wake, stop: Stop) -> None:
        """Tell when a QEMU has ended or something happened to it, and when the record of a VM is another one."""
        from reconciler.backends.qemu.watching import Watcher

        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        Watcher(self.settings, wake, self._nudge).run(stop)

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        """The readiness conditions of a VM right now."""
        from reconciler.backends.qemu.survey import probe

        return probe(self.settings, observed)

    def listening(self, id: ResourceId) -> frozenset[Socket]:
        """What listens in a VM that runs."""
        from reconciler.backends.qemu.folders import folder_of
        from reconciler.backends.qemu.listening import listening

        return listening(folder_of(self.settings.state, self.settings.runtime, id.name), str(id))

    def power(self, id: ResourceId, action: str, force: bool, timeout: float, tell: Tell) -> None:
        """start | stop | restart. timeout: seconds that a guest has to shut down before the plug is pulled."""
        from reconciler.backends.qemu.errands import machines

        with _files_named(id):
            patience = replace(self.grace, agent=timeout, button=min(timeout, self.grace.button))
            machines(self.settings, patience).power(id, action, force, tell)

    def logs(self, id: ResourceId, follow: bool) -> Iterator[bytes]:
        """The serial console from its beginning; with ``follow`` until the guest ends."""
        from reconciler.backends.qemu.console import logs

        return logs(self.settings, id, follow)

    def execute(self, id: ResourceId, call: Call) -> int:
        """Run a command in the guest; its exit code."""
        from reconciler.backends.qemu.console import execute

        return execute(self.settings, id, call)

    @contextmanager
    def files(self, id: ResourceId) -> Iterator[GuestFiles]:
        """By its guest agent."""
        from reconciler.backends.qemu.console import files

        with files(self.settings, id) as found:
            yield found

    def addresses(self) -> Mapping[ResourceId, Sequence[str] | None]:
        """Of VMs with a card on a bridge of this host: as their agents tell them."""
        from reconciler.backends.qemu.vitals import addresses

        return addresses(self.settings)

    def usage(self) -> Mapping[ResourceId, Usage]:
        """As this host sees their QEMUs."""
        from reconciler.backends.qemu.vitals import usage

        return usage(self.settings)

    def shell(self, id: ResourceId, user: str | None = None) -> int:
        """The serial console on our terminal, until Ctrl-]; it asks itself who is there."""
        from reconciler.backends.qemu.console import shell

        return shell(self.settings, id, user)

    def monitor(self, id: ResourceId, words: Sequence[str]) -> int:
        """QEMU's monitor for people: one command, its answer on stdout; without words a shell for it."""
        from reconciler.backends.qemu.console import monitor

        return monitor(self.settings, id, words)

    def close(self) -> None:
        """Let go of what ``watch`` opened; there is nothing else."""
        nudge, self._nudge = self._nudge, -1
        if nudge >= 0:
            os.close(nudge)


@contextmanager
def _files_named(id: ResourceId | None = None) -> Iterator[None]:
    """A full disk, a file that may not be touched, another command at work on it: a clear no, not a bug."""
    try:
        yield
    except Locked as error:
        raise Refused(error.problems) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        subject = str(id) if id is not None else None
        raise Refused(Problem(f"{where}{error.strerror or error}", subject=subject)) from error
