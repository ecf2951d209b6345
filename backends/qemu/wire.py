"""Bottom of the QEMU room: QMP on a socket, message by message. Waits for nothing; whoever holds it does (``wait``).

QEMU takes in a monitor's commands one byte at a time, each with a round of its main loop: they are written as short as
they can be.
"""

from __future__ import annotations

import json
import math
import select
import socket
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from reconciler.model import Json

Command = tuple[str, Mapping[str, Json] | None]
"""A QMP command: its name and its arguments."""

_PIECE = 1 << 16
_LONG = 1 << 24
"""Bytes of the longest answer that is believed to be one."""
BEGIN: Mapping[str, Json] = {"execute": "qmp_capabilities"}


class Lost(Exception):
    """Nothing more will come: the other end has hung up, or it does not speak QMP."""


class Wire:
    """One connection. Every method may raise Lost, and does so ever after."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._unsent = b""
        self._rest = b""

    def fileno(self) -> int:
        """To be waited for; Lost when there is nothing to wait for any more."""
        if (number := self._socket.fileno()) < 0:
            raise Lost("it is closed")
        return number

    @property
    def is_full(self) -> bool:
        """Whether something waits for the other end to take in what it was sent."""
        return bool(self._unsent)

    def send(self, message: Mapping[str, Json], handle: int | None = None) -> None:
        """A command, with a file descriptor beside it where one is given: that stays open here."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if handle is None:
            self._unsent += data
            self.flush()
            return
        try:
            sent = socket.send_fds(self._socket, [data], [handle])
        except OSError as error:  # a pipe that is full among them: a QEMU that has taken in nothing for that long
            raise self._lost(str(error)) from error
        self._unsent = data[sent:]
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lost(str(error)) from error

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come since, as far as they are whole."""
        try:
            data = self._socket.recv(_PIECE)
        except BlockingIOError:
            return []
        except OSError as error:
            raise self._lost(str(error)) from error
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > _LONG:
            raise self._lost("it hung up" if not data else "it does not come to an end")
        return [self._message(line) for line in lines if line.strip()]

    def close(self) -> None:
        """The other end may listen to somebody else."""
        self._socket.close()

    def _message(self, line: bytes) -> dict[str, Any]:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._lost("it does not speak QMP") from error
        if not isinstance(said, dict):
            raise self._lost("it does not speak QMP")
        return said

    def _lost(self, why: str) -> Lost:
        self.close()
        return Lost(why)


def wait(wires: Collection[Wire], deadline: float) -> list[Wire]:
    """Those of which something can be received (or that have ended), once there are any; none at the deadline.

    What could not be sent at once is sent meanwhile. deadline: of ``time.monotonic``
    """
    by_handle = {wire.fileno(): wire for wire in wires}
    poll = select.poll()
    for handle, wire in by_handle.items():
        poll.register(handle, select.POLLIN | (select.POLLOUT if wire.is_full else 0))
    ready = [by_handle[handle] for handle, _ in poll.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000)))]
    for wire in ready:
        with suppress(Lost):  # whoever receives from it is told
            wire.flush()
    return ready


def is_greeting(message: Mapping[str, Any]) -> bool:
    """Whether it is how QEMU begins."""
    return isinstance(message.get("QMP"), dict)


def is_welcome(message: Mapping[str, Any]) -> bool:
    """Whether it is what QEMU says to ``BEGIN``, when it lets us begin. What happens meanwhile is no answer."""
    return "return" in message


def command(name: str, arguments: Mapping[str, Json] | None, number: int) -> dict[str, Json]:
    """The message. number: by which the answer is known."""
    return {"execute": name, **({"arguments": arguments} if arguments else {}), "id": number}
