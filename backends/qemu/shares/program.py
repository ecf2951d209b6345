"""APPLY: which virtiofsd this host has. There are two of that name: QEMU's own up to 7.2, and the one that followed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from reconciler.backends.qemu.said import said

PLACES = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd", "/usr/libexec/qemu-kvm/virtiofsd")
INSTALL = "apt-get install virtiofsd (up to Debian 12: qemu-system-common)"
_NEW, _OLD = "--shared-dir", "-o source="
"""Options by which the two are told apart."""
_LOST = "mknod", "setfcap"
"""What a guest's root could leave in the folder for people on the host to run into: device nodes, capabilities."""


@dataclass(frozen=True, slots=True)
class Program:
    """A virtiofsd. old: QEMU's own; read_only: it can be told to refuse writing by itself, too."""

    path: str
    old: bool
    read_only: bool

    def arguments(self, folder: str, read_only: bool) -> list[str]:
        """The whole argv but for the number of the descriptor it listens on; folder: what it serves."""
        if self.old:
            options = [f"source={folder}", "sandbox=namespace", "modcaps=" + ":".join(f"-{word}" for word in _LOST)]
            return [self.path, "--fd=", "--rlimit-nofile=0", *(word for one in options for word in ("-o", one))]
        words = ["--fd=", "--shared-dir", folder, "--sandbox=namespace", "--rlimit-nofile=0"]
        words.append("--modcaps=" + ":".join(f"-{word}" for word in _LOST))
        return [self.path, *words, *(["--readonly"] if read_only and self.read_only else [])]


def find() -> Program | None:
    """The one that this host has; None when there is none that works."""
    return next((known for path, there in _there() if (known := _known(path, there.st_mtime_ns))), None)


def lacking() -> str:
    """Why there is none, in few words. QEMU's own needs an ordinary user to be in no group but one."""
    return next((f"{path} does not run here" for path, _ in _there()), "virtiofsd is missing")


def _there() -> Iterator[tuple[str, os.stat_result]]:
    for path in (*PLACES, shutil.which("virtiofsd") or ""):
        if path and Path(path).is_file():
            yield path, Path(path).stat()


@lru_cache(maxsize=8)
def _known(path: str, changed: int) -> Program | None:
    text = said((path, str(changed), "--help"), lambda: _help(path))
    if _NEW in text:
        return Program(path, old=False, read_only="--readonly" in text)
    return Program(path, old=True, read_only=False) if _OLD in text else None


def _help(path: str) -> str:
    """Nothing where it does not run, which may be otherwise for another user, or tomorrow."""
    try:
        answer = subprocess.run((path, "--help"), capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = answer.stdout + answer.stderr
    return text if _NEW in text or _OLD in text else ""
