"""Bottom, for whoever hands this host's folders to guests: a path opened once, where nobody can bend it.

A path that is checked and then used again may lead somewhere else by then. Here the kernel walks it in one go
(openat2), follows no symbolic link and no link of /proc, and never climbs out of the folder it started from. What
counts afterwards is the descriptor, not the path.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from reconciler.problems import Problem, Refused

_OPENAT2 = 437
"""The number of the system call, the same on every architecture; C libraries have no name for it yet."""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_TRIES = 32
_WORDS = {
    errno.ELOOP: ("a symbolic link is on the way to it", "name it by the path where it really is"),
    errno.EXDEV: ("it leads out of where it has to lie", "name it without '..'"),
    errno.ENOENT: ("it does not exist", None),
    errno.ENOTDIR: ("something on the way to it is not a folder", None),
    errno.ENOSYS: ("this kernel cannot open a path safely", "Linux 5.6 or newer is needed"),
    errno.EAGAIN: ("folders on the way to it are being renamed", "try again once that is over"),
}
_syscall = ctypes.CDLL(None, use_errno=True).syscall


class _How(ctypes.Structure):
    """The kernel's ``struct open_how``."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: Path, path: Path, flags: int = os.O_PATH) -> int:
    """A descriptor of ``path`` (absolute, or relative to ``root``), which the caller closes and no child inherits.

    root:  trusted, and may itself be reached by links; ``/`` where no narrower folder is known
    flags: as of ``os.open``; nothing is ever created

    Raises OSError: EXDEV when it leads out of ``root`` (or does not lie below it), ELOOP when a symbolic link stands
    on the way, ENOENT when there is nothing, ENOSYS on a kernel older than 5.6. ``refusal`` puts these in words.
    """
    if path.is_absolute():
        try:
            path = path.relative_to(root)
        except ValueError:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path)) from None
    start = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(start, path, flags)
    finally:
        os.close(start)


def refusal(error: OSError, path: Path, subject: str | None = None) -> Refused:
    """What to say of a path that could not be opened. subject: whom it is about."""
    code = error.errno or 0
    words, hint = _WORDS.get(code, (os.strerror(code), None))
    return Refused(Problem(f"{path}: {words}", subject=subject, hint=hint))


def _openat2(start: int, path: Path, flags: int) -> int:
    how = _How(flags | os.O_CLOEXEC, 0, _BENEATH | _NO_MAGICLINKS | _NO_SYMLINKS)
    code = 0
    for _ in range(_TRIES):  # the kernel asks for another try when something on the way was renamed meanwhile
        handle = int(_syscall(_OPENAT2, start, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
        if handle >= 0:
            return handle
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), str(path))
