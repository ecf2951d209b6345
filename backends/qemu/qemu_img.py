"""APPLY, the one tool beside QEMU: ``qemu-img``, which makes and grows disk files (blank ones we make without it).

It never opens, as root, a file whose content a guest has written: growing is done under a user that owns nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from reconciler.backends.qemu import blank
from reconciler.paths import private_dir
from reconciler.problems import Problem, Refused

_TIMEOUT = 120
_HELPER = 0x6FFFFFFE
"""A user id that owns nothing, lent to the file while it is worked on."""


def create(path: Path, format: str, size: int, subject: str, base: tuple[Path, str] | None = None) -> None:
    """A new disk at ``path``, whole or not at all; ``base``: file and format of what it is an overlay on."""
    private_dir(path.parent)
    making = path.with_name(f".{path.name}.making")
    making.unlink(missing_ok=True)
    # -u: the base is not opened. Its name in the header is for people; QEMU is told explicitly what lies below.
    overlay = ["-u", "-b", base[0].name, "-F", base[1]] if base else []
    try:
        if not overlay and blank.can_make(format, size):
            _make_blank(making, format, size, subject)
        else:
            _run(["create", "-q", "-f", format, *overlay, "--", str(making), str(size)], subject)
            making.chmod(0o600)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)


def _make_blank(path: Path, format: str, size: int, subject: str) -> None:
    try:
        blank.make(path, format, size)
    except OSError as error:
        raise Refused(
            Problem(f"{path.parent}: a disk cannot be made there: {error.strerror}", subject=subject)
        ) from error


def grow(handle: int, format: str, size: int, subject: str) -> None:
    """Make the disk behind the descriptor (open for writing) ``size`` bytes big. Refused while a QEMU uses it."""
    before = os.fstat(handle)
    root = os.geteuid() == 0
    if root:
        os.fchown(handle, _HELPER, -1)
    try:
        options = f"driver={format},file.driver=file,file.filename=/proc/self/fd/{handle}"
        if format == "qcow2":
            options += ",backing="
        _run(["resize", "-q", "--image-opts", options, str(size)], subject, _HELPER if root else None, (handle,))
    finally:
        if root:
            os.fchown(handle, before.st_uid, -1)


def _run(arguments: Sequence[str], subject: str, user: int | None = None, inherit: Sequence[int] = ()) -> None:
    program = shutil.which("qemu-img")
    if program is None:
        raise Refused(Problem("qemu-img is not installed", subject=subject, hint="apt-get install qemu-utils"))
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            pass_fds=inherit,
            cwd="/",
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(Problem(f"qemu-img {arguments[0]} took longer than {_TIMEOUT} s", subject=subject)) from error
    if done.returncode != 0:
        raise Refused(Problem(f"qemu-img {arguments[0]} failed", subject=subject, detail=done.stderr.strip()))
