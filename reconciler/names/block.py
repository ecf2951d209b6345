"""NAMES, the file: our block in /etc/hosts, or in a file of ours. Replaced as a whole, and only when it changes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler.blocks import BrokenMarks, block_of, with_block
from reconciler.names.lines import BLOCK, Names, carried_over
from reconciler.paths import private_dir
from reconciler.problems import Problem, Refused


def maintain(path: Path, found: Names, whole: bool) -> bool:
    """Bring the block in the file up to date; whether anything had to be written. Raises Refused.

    whole: False: some could not be looked at, and the names that only they have stay.
    Whatever a call that was killed left beside the file goes.
    """
    try:
        for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.reconciler"):
            left.unlink(missing_ok=True)
        before = path.read_bytes() if path.exists() else b""
        after = with_block(before, BLOCK, carried_over(block_of(before, BLOCK), found, whole))
        if after != before:
            replace(path, after)
        return after != before
    except BrokenMarks as error:
        raise Refused(Problem(str(error), subject=str(path), hint="mend them, or take all of it out")) from error
    except OSError as error:
        raise refused(path, error) from error


def has_block(path: Path) -> bool:
    """Whether names of ours stand there, or marks of ours that somebody broke."""
    try:
        return bool(block_of(path.read_bytes(), BLOCK))
    except BrokenMarks:
        return True
    except OSError:
        return False


def lines_of(path: Path) -> list[str]:
    """What stands in our block there; nothing where it cannot be told."""
    try:
        return block_of(path.read_bytes(), BLOCK)
    except (BrokenMarks, OSError):
        return []


def replace(path: Path, data: bytes) -> None:
    """As a whole or not at all, with the owner and mode that it had, else 0644. Raises OSError.

    A file that is a mount can only be overwritten.
    """
    there = path.stat() if path.exists() else None
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.reconciler")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if there is not None:
                os.fchown(file.fileno(), there.st_uid, there.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(there.st_mode) if there is not None else 0o644)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        path.write_bytes(data)
    finally:
        beside.unlink(missing_ok=True)


def refused(path: Path, error: OSError) -> Refused:
    """That the system does not let us write there, in words."""
    hint = "`reconciler hosts` prints what should stand there"
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        hint = f"names are kept by root; {hint}"
    return Refused(Problem(f"cannot be written: {error.strerror}", subject=str(path), hint=hint))


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """One of us at a time, so that no names are lost between reading and writing."""
    with (private_dir(state) / "hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
