"""APPLY for shared folders: where this LXD can map owners. What it says of itself is not the whole of it: some say that
they can, and refuse when it is tried. Where one did is remembered, as long as it is that very LXD.

Forgetting any of it costs a refused try. Remembering too long would cost owners: so any other process of LXD, which
looks anew at what its kernel can do when it starts, any other version of anything, and any other mount is asked anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from reconciler.paths import private_dir, write_private

_FILE = "lxd-owners.json"
_MOST = 16
"""As many LXDs are remembered, and as many mounts of each."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TELLING = ("certificate_fingerprint", "server_pid", "server_version", "driver_version", "kernel_version")
_FEATURES = ("kernel_features", "lxc_features")


class Owners:
    """What is known of one LXD. able: whether it says that it can map owners anywhere at all."""

    def __init__(self, state: Path, environment: Mapping[str, Any]) -> None:
        features = environment.get("kernel_features") or {}
        self.able = any(features.get(name) == "true" for name in ("idmapped_mounts", "shiftfs"))
        self._file = state / _FILE
        told = [environment.get(name) for name in (*_TELLING, *_FEATURES)]
        self._key = hashlib.sha256(json.dumps([_boot(), told], sort_keys=True).encode()).hexdigest()
        self._refused: set[str | None] = set(self._read().get(self._key, ()))

    def may(self, source: str) -> bool:
        """Whether it is worth trying with that folder."""
        return self.able and _mount(source) not in self._refused

    def refuse(self, sources: Collection[str]) -> None:
        """It was tried with these, and refused. Of several it is not known which one it was: then none of them is
        tried again by us, and whoever comes next tries them all."""
        mounts = {_mount(source) for source in sources}
        self._refused |= mounts
        if len(mounts) == 1 and None not in mounts:
            with suppress(OSError):
                self._write()

    def _read(self) -> dict[str, list[str]]:
        try:
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and all(isinstance(one, list) for one in found.values()) else {}

    def _write(self) -> None:
        rest = [(key, mounts) for key, mounts in self._read().items() if key != self._key]
        kept = dict([*rest[1 - _MOST :], (self._key, sorted(filter(None, self._refused))[:_MOST])])
        private_dir(self._file.parent)
        write_private(self._file, json.dumps(kept, indent=1).encode())


def _boot() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""


def _mount(source: str) -> str | None:
    """The mount that a folder is on, and the device below it; None when it cannot be told."""
    try:
        handle = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        about = Path(f"/proc/self/fdinfo/{handle}").read_text("ascii").splitlines()
        device = os.fstat(handle).st_dev
    except OSError:
        return None
    finally:
        os.close(handle)
    number = next((line.split()[1] for line in about if line.startswith("mnt_id:")), None)
    return f"{number} {device}" if number is not None else None
