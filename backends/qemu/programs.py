"""Bottom of the QEMU room: where the installed QEMU and its firmware are."""

from __future__ import annotations

import shutil
from pathlib import Path

from reconciler.problems import Problem, Refused

PROGRAM = "qemu-system-x86_64"
_CODE = ("OVMF_CODE_4M.fd", "OVMF_CODE.fd")
_VARS = {"OVMF_CODE_4M.fd": "OVMF_VARS_4M.fd", "OVMF_CODE.fd": "OVMF_VARS.fd"}
_FIRMWARE_FOLDERS = ("/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/edk2/x64", "/usr/share/qemu")


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
