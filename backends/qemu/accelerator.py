"""APPLY and doctor: KVM or TCG? ``/dev/kvm`` may open and still hang every real kernel, so KVM counts only once proved.

Proved means: a real Linux kernel, booted under KVM the way our guests are, was seen to speak on its serial console.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from reconciler.backends.qemu.machine import SANDBOX
from reconciler.backends.qemu.process import kvm_groups
from reconciler.backends.qemu.programs import find_program
from reconciler.model import Json
from reconciler.paths import private_dir, write_private
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

KVM, TCG = "kvm", "tcg"
_VARIABLE = "RECONCILER_ACCELERATOR"
_DEADLINE = 8.0
"""Seconds for a kernel to say its first words; under working KVM it takes a tenth of one."""
_NOBODY = 0x6FFFFFFD
_FIRST_WORDS = b"Linux version"
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of KVM here. proven None: it could not be tried (no kernel at hand); reason: for people."""

    accelerator: str
    proven: bool | None
    reason: str


def choose(declared: str, state: Path, subject: str, tell: Tell, kernel: Path | None = None) -> str:
    """``kvm`` or ``tcg`` for a machine that declares auto, kvm or tcg. ``kernel``: one to prove KVM with."""
    if declared in (KVM, TCG):
        return _possible(declared, "accelerator", subject)
    given = os.environ.get(_VARIABLE)
    if given:
        if given not in (KVM, TCG):
            hint = f"unset {_VARIABLE} to have it found out"
            raise Refused(Problem(f'{_VARIABLE}: expected kvm or tcg, got "{given}"', subject=subject, hint=hint))
        return _possible(given, _VARIABLE, subject)
    with _one_at_a_time:
        return (remembered(state) or prove(state, kernel, tell)).accelerator


def _possible(accelerator: str, said_by: str, subject: str) -> str:
    if accelerator == KVM and (problem := _closed()):
        hint = 'say "auto" or "tcg", or let the user that QEMU runs as open it'
        raise Refused(Problem(f"{said_by}: kvm cannot be used: {problem}", subject=subject, hint=hint))
    return accelerator


def remembered(state: Path) -> Proof | None:
    """What was found out earlier; None when it was never tried, or the host has changed since."""
    try:
        data = json.loads(_memory(state).read_bytes())
        return Proof(**data["proof"]) if data["host"] == _host() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prove(state: Path, kernel: Path | None, tell: Tell) -> Proof:
    """Find out, and remember it. Takes up to 8 s where KVM hangs."""
    if problem := _closed():
        return _remember(state, Proof(TCG, False, problem))
    kernel = kernel or next(_kernels(state), None)
    if kernel is None:
        return Proof(TCG, None, "not proven: there is no kernel to try it with yet")
    tell("proving KVM with a real kernel")
    answer = _boot(kernel)
    if answer is None:
        return _remember(state, Proof(KVM, True, "a Linux kernel boots under it"))
    return _remember(state, Proof(TCG, False, answer))


def _boot(kernel: Path) -> str | None:
    """None when the kernel speaks in time; else what happened instead."""
    with tempfile.TemporaryFile() as serial, tempfile.TemporaryFile() as errors, _readable(kernel) as handle:
        user = _NOBODY if os.geteuid() == 0 else None
        child = subprocess.Popen(
            [
                find_program(),
                *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                *("-sandbox", SANDBOX, "-machine", "q35", "-accel", "kvm", "-cpu", "max", "-m", "256"),
                *("-serial", "stdio"),
                *("-kernel", f"/proc/self/fd/{handle}", "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=serial,
            stderr=errors,
            pass_fds=(handle,),
            cwd="/",
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else kvm_groups(),
        )
        try:
            return _listen(child, serial.fileno(), errors.fileno())
        finally:
            child.kill()
            child.wait()


def _listen(child: subprocess.Popen[bytes], serial: int, errors: int) -> str | None:
    deadline = time.monotonic() + _DEADLINE
    ended = False
    while not ended:
        try:
            child.wait(0.05)
            ended = True
        except subprocess.TimeoutExpired:
            ended = time.monotonic() > deadline
        if _FIRST_WORDS in os.pread(serial, 65536, 0):
            return None
    words = os.pread(errors, 300, 0).decode("utf-8", "replace").strip()
    return (
        f"QEMU: {words.splitlines()[-1]}" if words else f"a Linux kernel says nothing under it within {_DEADLINE:g} s"
    )


def _closed() -> str | None:
    """Why KVM is out of the question without trying."""
    device = Path("/dev/kvm")
    try:
        status = device.stat()
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    root = os.geteuid() == 0
    allowed = is_open_to_machines(status) if root else os.access(device, os.R_OK | os.W_OK)
    return None if allowed else "/dev/kvm may not be opened by the user that QEMU runs as"


def is_open_to_machines(device: os.stat_result) -> bool:
    """Our QEMUs are not root: what root may open is not what they may."""
    return bool(device.st_mode & 0o006 == 0o006 or kvm_groups())


def _kernels(state: Path) -> Iterator[Path]:
    """Kernels to try with: of images that we have, then the host's own."""
    yield from sorted(path for path in state.glob("images/entries/*/*") if path.name in ("kernel", "vmlinuz"))
    yield from sorted(Path("/boot").glob("vmlinuz*"), reverse=True)


@contextmanager
def _readable(kernel: Path) -> Iterator[int]:
    """A descriptor of a copy that the unprivileged QEMU may open again."""
    handle = os.memfd_create("kernel", os.MFD_CLOEXEC)
    try:
        os.write(handle, kernel.read_bytes())
        yield handle
    finally:
        os.close(handle)


def _memory(state: Path) -> Path:
    return state / "accelerator.json"


def _remember(state: Path, proof: Proof) -> Proof:
    private_dir(state)
    data = {
        "host": _host(),
        "proof": {"accelerator": proof.accelerator, "proven": proof.proven, "reason": proof.reason},
    }
    write_private(_memory(state), json.dumps(data, sort_keys=True).encode())
    return proof


def _host() -> dict[str, Json]:
    """Whatever may turn the answer round: QEMU, the kernel and this boot of it, the processor, the device's rights."""
    program = Path(find_program()).resolve().stat()
    try:
        device = Path("/dev/kvm").stat()
        rights: list[int] = [device.st_mode, device.st_uid, device.st_gid]
    except OSError:
        rights = []
    models = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "qemu": [program.st_size, program.st_mtime_ns],
        "kernel": os.uname().release,
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "processor": next(models, ""),
        "device": rights,
        "user": os.geteuid(),
    }
