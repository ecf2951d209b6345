"""APPLY: the shared folder on the host, opened once. What is opened is mounted, whatever its path means later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.backends.qemu.folders import Folder
from reconciler.beneath import open_beneath, refusal
from reconciler.paths import runtime_dir, state_dir
from reconciler.problems import Problem, Refused

_ROOT = Path("/")


@contextmanager
def opened_source(name: str, source: str, folder: Folder, subject: str) -> Iterator[int]:
    """A descriptor (O_PATH) of the folder that share ``name`` gives away. Refused when it may not be given away.

    Whose folders may be shared is the policy's business; that the host itself and our own files are not is ours.
    """
    path = Path(source)
    try:
        handle = open_beneath(_ROOT, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        problem = refusal(error, path).problem
        raise Refused(Problem(f"shares.{name}: {problem.summary}", subject=subject, hint=problem.hint)) from error
    try:
        _check(name, Path(os.readlink(f"/proc/self/fd/{handle}")), folder, subject)
        yield handle
    finally:
        os.close(handle)


def identity(handle: int) -> tuple[int, int]:
    """What a folder is recognised by, however it is called: device and inode."""
    there = os.fstat(handle)
    return there.st_dev, there.st_ino


def _check(name: str, path: Path, folder: Folder, subject: str) -> None:
    if path == _ROOT:
        raise Refused(Problem(f"shares.{name}: / is the whole host", subject=subject, hint="share one folder of it"))
    ours = (folder.path.parents[1], folder.sockets.parents[1], state_dir(), runtime_dir())
    for one in (place.resolve() for place in ours):
        if path == one or path in one.parents or one in path.parents:
            what = f"shares.{name}: {path} is, holds or lies in {one}, where the machines themselves are kept"
            raise Refused(Problem(what, subject=subject, hint="share another folder"))
