"""APPLY, the host's end of a NIC: a tap that lives exactly as long as the QEMU that holds it, put on its bridge.

Opened by us, who may, and handed to QEMU, who may not. It is never made persistent: nothing is left to clean up.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from reconciler.problems import Problem, Refused

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCBRADDIF = 0x89A2
_IFF_UP = 0x1
_TUN = "/dev/net/tun"


def open_tap(subject: str, nic: str, bridge: str | None) -> int:
    """A tap's descriptor, its host end up and, with ``bridge``, on that bridge. Refused when that cannot be."""
    try:
        index = socket.if_nametoindex(bridge) if bridge else None
    except OSError as error:
        hint = "declare it as a Network, or make it first"
        raise Refused(Problem(f'nics.{nic}.bridge: there is no "{bridge}"', subject=subject, hint=hint)) from error
    try:
        handle = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _not_allowed(subject, nic, error) from error
    try:
        name = _attach(handle)
        if index is not None and bridge is not None:
            _ask(_SIOCBRADDIF, struct.pack("16si", bridge.encode(), socket.if_nametoindex(name)))
        _set_up(name)
    except OSError as error:
        os.close(handle)
        raise _not_allowed(subject, nic, error) from error
    return handle


def _attach(handle: int) -> str:
    request = struct.pack("16sH22x", b"rctap%d", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    answer = fcntl.ioctl(handle, _TUNSETIFF, request)
    return answer[:16].rstrip(b"\0").decode()


def _set_up(name: str) -> None:
    (flags,) = struct.unpack_from("16xH", _ask(_SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0)))
    _ask(_SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))


def _ask(request: int, argument: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock, request, argument)


def _not_allowed(subject: str, nic: str, error: OSError) -> Refused:
    return Refused(
        Problem(
            f"nics.{nic}: no tap could be made: {error.strerror}",
            subject=subject,
            hint="tap and bridge NICs need root (CAP_NET_ADMIN); `type: user` does not",
        )
    )
