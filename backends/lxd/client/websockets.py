"""Websockets to LXD (RFC 6455, client side): what exec and shell talk over.

Our own, because the one that pylxd brings does not check TLS certificates at all and reads past the end of the
handshake, where a quick command's output already stands. No Origin is sent: LXD answers 403 to one on unix sockets.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from reconciler.backends.lxd import handshake
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client.local import hint_for, reason
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.handshake import shake_hands
from reconciler.problems import Problem, Refused, Unreachable

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CHUNK = 65536
_LONGEST = 16 << 20
"""Bytes of a message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message. LXD says "end of this stream" with an (empty) text message among binary ones."""

    data: bytes
    text: bool


class WebSocket:
    """An open websocket. One thread receives; any thread may send."""

    def __init__(self, connection: socket.socket, rest: bytes) -> None:
        self._connection = connection
        self._buffer = bytearray(rest)
        self._parts = bytearray()
        self._kind = _BINARY
        self._sending = threading.Lock()
        self._deaf = False  # the other side hears no more; what it said before may still be on its way to us
        self.closed = False
        self.heard = 0
        """How many messages have come."""

    def fileno(self) -> int:
        return self._connection.fileno()

    def pending(self) -> list[Message]:
        """What has arrived already, without reading from the connection."""
        return self._messages()

    def receive(self) -> list[Message]:
        """Read once (waits until something comes) and return the messages that are whole by then."""
        try:
            data = self._connection.recv(_CHUNK)
            while isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
                data += self._connection.recv(self._connection.pending())
        except OSError:
            data = b""
        if not data:
            self.closed = True
        self._buffer += data
        return self._messages()

    def send(self, data: bytes, text: bool = False) -> None:
        """Send one message. Does nothing once the other side has gone: the receiver is told so."""
        self._frame(_TEXT if text else _BINARY, data)

    def close(self) -> None:
        self._frame(_CLOSE, struct.pack(">H", 1000))
        self.closed = True
        self._connection.close()

    def _frame(self, kind: int, data: bytes) -> None:
        if self.closed or self._deaf:
            return
        size = len(data)
        head = bytes([0x80 | kind])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += struct.pack(">BH", 0x80 | 126, size)
        else:
            head += struct.pack(">BQ", 0x80 | 127, size)
        key = os.urandom(4)
        with self._sending:
            try:
                self._connection.sendall(head + key + _masked(data, key))
            except OSError:
                self._deaf = True

    def _messages(self) -> list[Message]:
        found: list[Message] = []
        while (frame := self._next_frame()) is not None:
            final, kind, data = frame
            if kind == _CLOSE:
                self.closed = True
            elif kind == _PING:
                self._frame(_PONG, data)
            elif kind in (0, _TEXT, _BINARY):
                self._kind = kind or self._kind
                self._parts += data
                if final:
                    found.append(Message(bytes(self._parts), self._kind == _TEXT))
                    self._parts.clear()
        self.heard += len(found)
        return found

    def _next_frame(self) -> tuple[bool, int, bytes] | None:
        """Take one frame off the buffer; servers do not mask."""
        if len(self._buffer) < 2:
            return None
        first, size, start = self._buffer[0], self._buffer[1] & 0x7F, 2
        if size == 126:
            start = 4
        elif size == 127:
            start = 10
        if len(self._buffer) < start:
            return None
        if start > 2:
            size = int.from_bytes(self._buffer[2:start], "big")
        if size + len(self._parts) > _LONGEST:
            self.closed = True  # LXD's are far shorter, and whoever talks to us would fill our memory
            return None
        if len(self._buffer) < start + size:
            return None
        data = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        return bool(first & 0x80), first & 0x0F, data


def open_websocket(address: Address, target: str, within: Deadline) -> WebSocket:
    """Connect and shake hands. Raises Unreachable, or Refused when LXD says no."""
    try:
        connection = connect(address, max(1.0, within.left))
    except OSError as error:
        raise silence(address, error) from error
    try:
        return WebSocket(connection, shake_hands(connection, target))
    except OSError as error:
        connection.close()
        raise Unreachable(Problem(f"no answer from LXD at {address}: {reason(error)}")) from error
    except Refused:
        connection.close()
        raise


def silence(address: Address, error: Exception) -> Unreachable:
    """What to say when nothing came back."""
    return Unreachable(Problem(f"no answer from LXD at {address}: {reason(error)}", hint=hint_for(error)))


def connect(address: Address, timeout: float) -> socket.socket:
    """A connection to that LXD: its unix socket, or TLS with the pinned certificate. Raises OSError."""
    if address.socket:
        return handshake.connect(address.socket, timeout)
    where = urlsplit(str(address.url))
    plain = socket.create_connection((where.hostname or "", where.port or 443), timeout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the certificate is pinned: compared as a whole, before a byte is sent
    context.load_cert_chain(str(address.client_certificate), str(address.client_key))
    secure = context.wrap_socket(plain, server_hostname=where.hostname)
    pinned = ssl.PEM_cert_to_DER_cert(_read(address))
    if secure.getpeercert(binary_form=True) != pinned:
        secure.close()
        raise ssl.SSLError("its certificate is not the pinned one")
    return secure


def _read(address: Address) -> str:
    assert address.server_certificate is not None
    return address.server_certificate.read_text(encoding="ascii")


def _masked(data: bytes, key: bytes) -> bytes:
    """XOR with the key, repeated; as whole integers because that is quick."""
    if not data:
        return data
    mask = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(data), "big")
