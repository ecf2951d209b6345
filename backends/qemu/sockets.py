"""Bottom of the QEMU room: unix sockets, made by us and handed over, however deep their folder is."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.problems import Problem, Unreachable

_WAITING = 16
"""How many may wait to be heard; those that have left meanwhile count until they are looked at."""


class Busy(Unreachable):
    """Somebody listens there, and too many already wait to be heard."""


def listen(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A listening socket at ``path``, mode 0600, in place of any that was there. The caller holds the VM's lock."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        with _address(path) as address:
            sock.bind(address)
        path.chmod(0o600)  # nobody can have connected before: the folder is 0700
        sock.listen(_WAITING)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(path: Path, subject: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A connected, non-blocking socket. Unreachable when nobody listens there, Busy when too many already wait."""
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.setblocking(False)
    try:
        with _address(path) as address:
            sock.connect(address)
    except OSError as error:
        sock.close()
        if error.errno == errno.EAGAIN:
            raise Busy(Problem(f"{path.name}: too many others wait for it", subject=subject)) from error
        raise Unreachable(Problem(f"{path.name}: nobody listens there ({error.strerror})", subject=subject)) from error
    return sock


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """An address that fits the kernel's 108 bytes."""
    handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)
