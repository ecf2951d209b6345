"""How a websocket to LXD begins (RFC 6455, client side). By itself, because nothing has to be loaded for it."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import time
from pathlib import Path

from reconciler.problems import Problem, Refused

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CHUNK = 65536
_LONG, _MOMENT = 3600.0, 0.001


def connect(path: Path, timeout: float) -> socket.socket:
    """A connection to that unix socket. Raises OSError."""
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        plain.settimeout(timeout)
        plain.connect(str(path))
    except OSError:
        plain.close()
        raise
    return plain


def shake_hands(connection: socket.socket, target: str) -> bytes:
    """Make it a websocket, in no more time than the connection's timeout; what has come behind the handshake. Raises
    OSError, or Refused when LXD says no."""
    until = time.monotonic() + (connection.gettimeout() or _LONG)
    key = base64.b64encode(os.urandom(16))
    connection.sendall(
        b"GET " + target.encode("ascii") + b" HTTP/1.1\r\nHost: lxd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        if len(answer) > _CHUNK:
            raise ConnectionError("what it says is no answer")
        connection.settimeout(max(_MOMENT, until - time.monotonic()))
        data = connection.recv(_CHUNK)
        if not data:
            raise ConnectionError("it hung up")
        answer += data
        if time.monotonic() > until:
            raise TimeoutError("it took too long")
    head, _, rest = answer.partition(b"\r\n\r\n")
    expected = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
    if b" 101 " not in head.split(b"\r\n")[0] + b" " or expected not in head:
        status = head.partition(b"\r\n")[0].decode("ascii", "replace")
        raise Refused(Problem(f"LXD refused the websocket: {status}", detail=rest.decode("utf-8", "replace")))
    connection.settimeout(None)
    return rest
