"""``reconciler hosts``: names of guests for programs on this host, as a block of /etc/hosts that is ours."""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import glob
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from reconciler.blocks import BrokenMarks, block_of, with_block
from reconciler.cli import DONE, PROBLEM
from reconciler.cli.hostnames import BLOCK, Names, kept, names
from reconciler.cli.lookup import Seen, look
from reconciler.cli.screen import show_problems
from reconciler.model import ResourceId
from reconciler.paths import private_dir, state_dir
from reconciler.ports import Guests
from reconciler.problems import Problem, Refused


def run(arguments: argparse.Namespace) -> int:
    """Print the block, or keep it up to date in a file. What a silent backend would know stays as it is there."""
    with look(arguments) as seen:
        found = names(seen.world, _direct(seen))
    show_problems([*found.problems, *seen.problems])
    if arguments.write is None:
        sys.stdout.write(with_block(b"", BLOCK, found.lines).decode())
    else:
        with _alone():
            maintain(Path(os.path.realpath(arguments.write)), found, whole=not seen.problems)
    return PROBLEM if seen.problems else DONE


def _direct(seen: Seen) -> dict[tuple[str, ResourceId], list[str]]:
    """Each guest's own addresses, as far as this host reaches them; nothing of backends that do not answer."""
    found: dict[tuple[str, ResourceId], list[str]] = {}
    for name, backend in seen.backends.items():
        if seen.world.problem(name) is None:
            for id, addresses in cast(Guests, backend).addresses().items():
                found[name, id] = list(addresses)
    return found


def maintain(path: Path, found: Names, whole: bool) -> None:
    """Bring the block in the file up to date; nothing is written where it is so already. Raises Refused.

    Whatever a call that was killed left beside the file goes.
    """
    try:
        for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.reconciler"):
            left.unlink(missing_ok=True)
        before = path.read_bytes() if path.exists() else b""
        lines = found.lines if whole else [*found.lines, *kept(block_of(before, BLOCK), found.lines)]
        after = with_block(before, BLOCK, lines)
        if after != before:
            _replace(path, after)
    except BrokenMarks as error:
        raise Refused(Problem(str(error), subject=str(path), hint="mend them, or take all of it out")) from error
    except OSError as error:
        raise Refused(Problem(f"cannot be written: {error.strerror}", subject=str(path))) from error


def _replace(path: Path, data: bytes) -> None:
    """As a whole or not at all, with the owner and mode that it had. A file that is a mount can only be overwritten."""
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


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One of us at a time, so that no names are lost between reading and writing."""
    with (private_dir(state_dir()) / "hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
