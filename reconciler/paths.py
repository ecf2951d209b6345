"""Where our own files live: state (outlives reboots) and runtime (sockets). Used by every room that keeps something.

``$RECONCILER_STATE_DIR`` moves both; else root uses /var/lib and /run, a user the XDG folders.
Folders are 0700, files 0600.
"""

from __future__ import annotations

import os
import stat
from _thread import get_ident  # what threading has it from, and costs nothing to load
from contextlib import suppress
from pathlib import Path

from reconciler import bases


def state_dir() -> Path:
    """The state folder; not created here (see ``private_dir``)."""
    return Path(bases.state())


def runtime_dir() -> Path:
    """The folder for sockets; inside the state folder when that was given explicitly."""
    return Path(bases.runtime())


def private_dir(path: Path) -> Path:
    """Make the folder, and every parent that is not there, and see that only we may enter it."""
    with suppress(FileNotFoundError):  # there as it should be, as nearly always: asked in one go
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode) and not mode & 0o077:
            return path
    for missing in (*reversed([parent for parent in path.parents if not parent.exists()]), path):
        missing.mkdir(exist_ok=True, mode=0o700)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Replace the file as a whole or not at all: temporary name, fsync, rename. Mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
