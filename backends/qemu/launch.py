"""APPLY, from nothing to a guest that runs: spawn a bare QEMU, plug everything in over QMP, let go.

One path for what is there at boot and what is plugged in later. Files are opened here and reach QEMU as descriptors:
it has no right to open any itself.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.qemu import machine, process, taps
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.headers import check
from reconciler.backends.qemu.machine import Drive, Handles
from reconciler.backends.qemu.records import Process, Record, save
from reconciler.backends.qemu.sockets import listen
from reconciler.model import Spec
from reconciler.problems import BackendError, Interrupted, Problem, Refused, Unreachable

PROGRAM = "qemu-system-x86_64"
_CODE = ("OVMF_CODE_4M.fd", "OVMF_CODE.fd")
_VARS = {"OVMF_CODE_4M.fd": "OVMF_VARS_4M.fd", "OVMF_CODE.fd": "OVMF_VARS.fd"}
_FIRMWARE_FOLDERS = ("/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/edk2/x64", "/usr/share/qemu")
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


def find_program() -> str:
    """The QEMU to run; Refused when there is none."""
    found = shutil.which(PROGRAM)
    if found is None:
        hint = "apt-get install qemu-system-x86, or `reconciler doctor --fix`"
        raise Refused(Problem(f"{PROGRAM} is not installed", hint=hint))
    return found


def find_firmware() -> tuple[Path, Path] | None:
    """UEFI code and variables template, or None when OVMF is not installed."""
    for folder in map(Path, _FIRMWARE_FOLDERS):
        for code in _CODE:
            if (folder / code).is_file() and (folder / _VARS[code]).is_file():
                return folder / code, folder / _VARS[code]
    return None


def no_firmware(subject: str) -> Refused:
    """What to say of ``firmware: uefi`` where there is none."""
    hint = "apt-get install ovmf, or `reconciler doctor --fix`"
    return Refused(Problem("firmware: no UEFI firmware is installed", subject=subject, hint=hint))


def start(launch: Launch, record: Record) -> Record:
    """A running guest, and the record that says so. The caller holds the lock and knows that no QEMU of it is alive.

    Whatever goes wrong, no QEMU is left behind. Raises Refused with QEMU's own words when it does not take the machine.
    """
    folder = launch.folder
    folder.make()
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
    record = save(folder, record.but(process=born, log_start=log_start))
    try:
        _assemble(launch, record)
    except BackendError as error:
        raise _failed(folder, record, born, error) from error
    except BaseException:
        process.kill(born, record)
        raise
    return record


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


def _assemble(launch: Launch, record: Record) -> None:
    """Plug in everything, then let the guest go."""
    with Monitor(launch.folder.qmp, record.id, greeting=_BOOTING) as monitor:
        ports = (f"port{number}" for number in range(1000))
        for order, drive in enumerate(launch.drives):
            _plug_disk(monitor, drive, next(ports), order, record)
        for name, nic in launch.spec.get("nics", {}).items():
            _plug_nic(monitor, name, nic, next(ports), record)
        if launch.spec.get("guestAgent", True):
            _plug_agent(monitor, launch.folder, next(ports))
        # The firmware reads the boot order at reset, and what was just plugged in came after the first one.
        monitor.execute_and_wait("system_reset", ["RESET"], timeout=10.0)
        monitor.execute("cont")


def _plug_disk(monitor: Monitor, drive: Drive, port: str, order: int, record: Record) -> None:
    with ExitStack() as stack:
        handle = stack.enter_context(open_drive(drive, record.id))
        fdset = monitor.execute_with(handle, "add-fd", {})["fdset-id"]
        backing = None
        if drive.backing is not None:
            base = stack.enter_context(_opened(drive.backing, os.O_RDONLY, record.id))
            backing = monitor.execute_with(base, "add-fd", {})["fdset-id"]
        for node in machine.block_nodes(drive, fdset, backing):
            monitor.execute("blockdev-add", node)
    monitor.execute("device_add", machine.disk_device(drive, port, order))


@contextmanager
def open_drive(drive: Drive, subject: str) -> Iterator[int]:
    """A descriptor of the disk, as QEMU is to get it. Refused when it is no disk, or not the one it is said to be."""
    # O_NONBLOCK: a pipe in place of a disk shall be refused, not waited for.
    flags = (os.O_RDONLY if drive.read_only else os.O_RDWR) | os.O_NONBLOCK
    with _opened(drive.file, flags, subject) as handle:
        kind = os.fstat(handle).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise Refused(Problem(f"{drive.file}: neither a file nor a block device", subject=subject))
        if drive.foreign:
            check(handle, drive.format, subject, f"disks.{drive.name}")
        yield handle


def _plug_nic(monitor: Monitor, name: str, nic: Spec, port: str, record: Record) -> None:
    if nic["type"] == "user":
        monitor.execute("netdev_add", {"type": "user", "id": f"net-{name}"})
    else:
        tap = taps.open_tap(record.id, name, nic.get("bridge") if nic["type"] == "bridge" else None)
        try:
            monitor.execute_with(tap, "getfd", {"fdname": f"tap-{name}"})
        finally:
            os.close(tap)
        monitor.execute("netdev_add", {"type": "tap", "id": f"net-{name}", "fd": f"tap-{name}"})
    monitor.execute("device_add", machine.nic_device(name, nic, machine.mac_of(record.birth, name, nic), port))


def _plug_agent(monitor: Monitor, folder: Folder, port: str) -> None:
    with listen(folder.agent) as sock:
        monitor.execute_with(sock.fileno(), "getfd", {"fdname": "agent"})
    address = {"type": "fd", "data": {"str": "agent"}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    monitor.execute("chardev-add", {"id": "agent", "backend": backend})
    monitor.execute("device_add", {"driver": "virtio-serial-pci", "id": "serial-bus", "bus": port})
    channel = {"driver": "virtserialport", "id": "agent", "chardev": "agent", "bus": "serial-bus.0"}
    monitor.execute("device_add", {**channel, "name": "org.qemu.guest_agent.0"})


@contextmanager
def _birth_handles(launch: Launch, record: Record) -> Iterator[Handles]:
    """What QEMU inherits. Our own copies are closed afterwards, so that its death closes the sockets."""
    folder = launch.folder
    with ExitStack() as stack:

        def opened(path: Path, flags: int) -> int:
            return stack.enter_context(_opened(path, flags, record.id))

        handles = {
            name: stack.enter_context(listen(getattr(folder, name))).fileno() for name in ("qmp", "people", "serial")
        }
        handles["serial_log"] = opened(folder.serial_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        uefi = launch.spec.get("firmware") == "uefi"
        if folder.kernel.exists():
            unpacked = not uefi and folder.kernel_elf.exists()
            handles["kernel"] = opened(folder.kernel_elf if unpacked else folder.kernel, os.O_RDONLY)
            if folder.initrd.exists():
                handles["initrd"] = opened(folder.initrd, os.O_RDONLY)
        if uefi:
            code = find_firmware()
            if code is None:
                raise no_firmware(record.id)
            handles["firmware"] = opened(code[0], os.O_RDONLY)
            handles["firmware_vars"] = opened(folder.firmware_vars, os.O_RDWR)
        yield Handles(**handles)


@contextmanager
def _opened(path: Path, flags: int, subject: str) -> Iterator[int]:
    try:
        handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(Problem(f"{path}: {error.strerror}", subject=subject)) from error
    try:
        yield handle
    finally:
        os.close(handle)
