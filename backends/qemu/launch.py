"""APPLY, from nothing to a guest that runs: spawn a bare QEMU, plug everything in over QMP, let go.

One path for what is there at boot and what is plugged in later. Files are opened here and reach QEMU as descriptors:
it has no right to open any itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.qemu import machine, process, tpm
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.machine import Drive, Handles
from reconciler.backends.qemu.plugging import Live, assemble
from reconciler.backends.qemu.plugging.disks import opened
from reconciler.backends.qemu.programs import find_firmware, find_program, no_firmware
from reconciler.backends.qemu.records import Process, Record, save
from reconciler.backends.qemu.shares import cold, daemon
from reconciler.backends.qemu.sockets import listen
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import BackendError, Interrupted, Problem, Refused, Unreachable

_LONG_LOG = 16 << 20
_BOOTING = 60.0
"""Seconds that QEMU may take to greet us on a busy machine; its death is seen at once."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that one start needs, found out beforehand."""

    folder: Folder
    spec: Spec
    drives: Sequence[Drive]
    accelerator: str
    boot_line: str
    tell: Tell


def start(launch: Launch, record: Record) -> Record:
    """A running guest, and the record that says so. The caller holds the lock and knows that no QEMU of it is alive.

    Whatever goes wrong, no QEMU is left behind. Raises Refused with QEMU's own words when it does not take the machine.
    """
    folder = launch.folder
    folder.make()
    daemon.sweep(folder)
    log_start = _turn_log(folder.serial_log)
    with _birth_handles(launch, record) as handles:
        argv = machine.command_line(
            find_program(),
            launch.spec,
            record,
            launch.accelerator,
            handles,
            launch.boot_line,
            machine.ports_for(launch.spec, launch.drives),
        )
        born = process.spawn(folder, argv, handles.all(), record.uid)
    record = save(folder, record.but(process=born, log_start=log_start, plugged={}))
    try:
        return _assemble(launch, record)
    except BackendError as error:
        raise _failed(folder, record, born, error) from error
    except BaseException:
        process.kill(born, record)
        raise


def _turn_log(log: Path) -> int:
    """Where in the serial log the boot to come begins; one that has grown too long is put aside first."""
    size = log.stat().st_size if log.exists() else 0
    if size <= _LONG_LOG:
        return size
    log.replace(log.with_suffix(".log.1"))
    return 0


def _failed(folder: Folder, record: Record, born: Process, error: BackendError) -> BackendError:
    """What to say of a start that failed: QEMU's own words when it died, else what it refused."""
    died = process.wait_gone(born, 1.0 if isinstance(error, Unreachable | Interrupted) else 0.0)
    process.kill(born, record)
    save(folder, record.but(process=None))
    words = process.last_words(folder)
    if died and words:
        return Refused(Problem("QEMU ended before the machine was complete", subject=record.id, detail=words))
    return error


def _assemble(launch: Launch, record: Record) -> Record:
    """Plug in everything, then let the guest go."""
    folder, spec = launch.folder, launch.spec
    with Monitor(folder.qmp, record.id, greeting=_BOOTING) as monitor:
        live = Live(folder, monitor, record, spec, launch.drives, launch.tell, booted=False)
        assemble(live)
        # The firmware reads the boot order at reset, and what was just plugged in came after the first one.
        monitor.execute_and_wait("system_reset", ["RESET"], timeout=10.0)
        monitor.execute("cont")
        return live.record


@contextmanager
def _birth_handles(launch: Launch, record: Record) -> Iterator[Handles]:
    """What QEMU inherits. Our own copies are closed afterwards, so that its death closes the sockets."""
    folder = launch.folder
    with ExitStack() as stack:

        def handle_of(path: Path, flags: int) -> int:
            return stack.enter_context(opened(path, flags, record.id))

        handles = {
            name: stack.enter_context(listen(getattr(folder, name))).fileno()
            for name in ("qmp", "people", "events", "serial")
        }
        handles["serial_log"] = handle_of(folder.serial_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        uefi = launch.spec.get("firmware") == "uefi"
        if folder.kernel.exists():
            unpacked = not uefi and folder.kernel_elf.exists()
            handles["kernel"] = handle_of(folder.kernel_elf if unpacked else folder.kernel, os.O_RDONLY)
            if folder.initrd.exists():
                handles["initrd"] = handle_of(folder.initrd, os.O_RDONLY)
        if uefi:
            code = find_firmware()
            if code is None:
                raise no_firmware(record.id)
            handles["firmware"] = handle_of(code[0], os.O_RDONLY)
            handles["firmware_vars"] = handle_of(folder.firmware_vars, os.O_RDWR)
        if launch.spec.get("tpm"):
            handles["tpm"] = stack.enter_context(tpm.beside(folder, record))
        folders = stack.enter_context(cold.folders_for(launch.spec, folder, record.id))
        yield Handles(**handles, folders=folders)
