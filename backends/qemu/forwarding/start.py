"""APPLY, in a process of its own: the forwarder's first lines. Gives up every right, then serves until its QEMU ends.

It is started by path, and imports its own modules past their packages: of all the rest it needs nothing, and what is
not loaded costs no memory and no time. Its rights go only now, because its user may not read where Python lies.

    python -I -S start.py <uuid of the VM> <uid or -> <descriptor of the control socket> <pidfd of its QEMU>
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from types import ModuleType

_PACKAGE = "reconciler.backends.qemu.forwarding"
_NO_NEW_PRIVILEGES = 38
_HANDLES = 2048
_LOG = 1 << 20


def main() -> None:
    """Only comes back when its QEMU has ended."""
    user, control, qemu = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sys.modules |= _packages()
    from reconciler.backends.qemu.forwarding.program import serve

    _give_up(None if user == "-" else int(user))
    serve(control, qemu)


def _packages() -> dict[str, ModuleType]:
    """Ours, as empty folders of modules."""
    place, found = os.path.dirname(os.path.abspath(__file__)), {}
    name = _PACKAGE
    while name:
        found[name] = ModuleType(name)
        found[name].__path__ = [place]
        place, name = os.path.dirname(place), name.rpartition(".")[0]
    return found


def _give_up(user: int | None) -> None:
    """No other user, no other process, no file: what is open is all that it will ever have."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LOG, _LOG))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _HANDLES if hard == resource.RLIM_INFINITY else min(_HANDLES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")


if __name__ == "__main__":
    main()
