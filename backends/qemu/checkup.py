"""DOCTOR: what VMs need of this host: QEMU, an accelerator that was proved, firmware, the tools around them."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from reconciler.backends.qemu import accelerator, tpm
from reconciler.backends.qemu.programs import PROGRAM, find_firmware
from reconciler.backends.qemu.shares import program
from reconciler.ports import Check, Settings, Tell
from reconciler.problems import BackendError, Problem, Refused

_OLDEST = (7, 2)
_HANDLES = 1024
"""File descriptors that one command may need: a dozen a VM that it looks at, all at once."""


def checks(settings: Settings) -> list[Check]:
    """One line each."""
    return [
        _qemu(),
        _qemu_img(),
        _accelerator(settings),
        _kvm(),
        _firmware(),
        _virtiofsd(),
        _swtpm(),
        _tun(),
        _handles(),
    ]


def _qemu() -> Check:
    path = shutil.which(PROGRAM)
    if path is None:
        return _missing("QEMU", "qemu-system-x86")
    text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    found = re.search(r"version (\d+)\.(\d+)[\d.]*", text)
    if found is None:
        return Check("QEMU", False, f"{path} does not say its version", "reinstall it", _installer("qemu-system-x86"))
    version = (int(found[1]), int(found[2]))
    hint = f"QEMU {_OLDEST[0]}.{_OLDEST[1]} or newer is needed"
    return Check(
        "QEMU", version >= _OLDEST, f"{found[0].removeprefix('version ')} at {path}", hint, facts={"path": path}
    )


def _qemu_img() -> Check:
    path = shutil.which("qemu-img")
    return Check("qemu-img", True, path) if path else _missing("qemu-img", "qemu-utils")


def _accelerator(settings: Settings) -> Check:
    """What ``accelerator: auto`` comes to, found out now if it was not yet."""
    name = "accelerator"
    if given := os.environ.get("RECONCILER_ACCELERATOR"):
        return Check(name, given in ("kvm", "tcg"), f"{given}, as RECONCILER_ACCELERATOR says", "say kvm or tcg")
    if shutil.which(PROGRAM) is None:
        return Check(name, None, "QEMU is not installed")
    try:
        proof = accelerator.remembered(settings.state) or accelerator.prove(settings.state, None, _nobody)
    except BackendError as error:
        return Check(name, None, error.problem.summary)
    hint = "" if proof.proven else "VMs run under TCG: slower, and otherwise the same"
    found = f"{proof.accelerator}: {proof.reason}"
    return Check(name, True, found, hint, facts={"accelerator": proof.accelerator, "proven": proof.proven})


def _kvm() -> Check:
    """Rights alone prove nothing (see ``accelerator``); without them there is nothing to prove."""
    device = Path("/dev/kvm")
    if not device.exists():
        return Check("/dev/kvm", None, "not there: no virtualisation here, or its kernel module is not loaded")
    if os.geteuid() == 0 and not accelerator.is_open_to_machines(device.stat()):
        hint = "`chgrp kvm /dev/kvm && chmod 0660 /dev/kvm`: our QEMUs are not root"
        return Check("/dev/kvm", None, f"only root may open it (mode {device.stat().st_mode & 0o777:04o})", hint)
    if os.access(device, os.R_OK | os.W_OK):
        return Check("/dev/kvm", True, f"may be opened (mode {device.stat().st_mode & 0o777:04o})")
    if not device.stat().st_mode & 0o060:
        hint = "root has to give it to a group first: `chgrp kvm /dev/kvm && chmod 0660 /dev/kvm`"
    else:
        hint = "add yourself to its group: `adduser $USER kvm`, then log in again"
    return Check("/dev/kvm", None, "may not be opened by you", hint)


def _firmware() -> Check:
    found = find_firmware()
    if found is None:
        fix = _installer("ovmf")
        return Check("UEFI firmware", None, "not installed; needed for firmware: uefi", "apt-get install -y ovmf", fix)
    return Check("UEFI firmware", True, str(found[0]))


def _virtiofsd() -> Check:
    found = program.find()
    if found is None:
        what = f"{program.lacking()}; needed for sharing folders with VMs that run"
        return Check("virtiofsd", None, what, program.INSTALL)
    return Check("virtiofsd", True, found.path)


def _swtpm() -> Check:
    path = shutil.which(tpm.PROGRAM)
    if path is None:
        fix = _installer(tpm.PROGRAM)
        hint = f"apt-get install -y {tpm.PROGRAM}"
        return Check("TPM", None, f"{tpm.PROGRAM} is not installed; needed for tpm: true", hint, fix)
    return Check("TPM", True, path)


def _tun() -> Check:
    if os.geteuid() != 0:
        return Check("tap NICs", None, "need root; NICs of type user do not")
    there = Path("/dev/net/tun").exists()
    return Check("tap NICs", there or None, "/dev/net/tun" if there else "no /dev/net/tun", "modprobe tun")


def _handles() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Check("open files", soft >= _HANDLES, f"{soft} at once (at most {hard})", f"ulimit -n {_HANDLES}")


def _missing(name: str, package: str) -> Check:
    return Check(name, False, "not installed", f"apt-get install -y {package}", _installer(package))


def _installer(package: str) -> Callable[[Tell], None] | None:
    """How to mend it, where we may."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None

    def install(tell: Tell) -> None:
        tell(f"installing {package}")
        command = ["apt-get", "install", "-y", "--no-install-recommends", package]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise Refused(Problem(f"{package}: cannot be installed", detail=done.stderr.strip(), hint="apt-get update"))

    return install


def _nobody(_message: str) -> None:
    """Doctor's own line says it all."""
