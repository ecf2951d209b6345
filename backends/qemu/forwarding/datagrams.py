"""APPLY, in the forwarder: UDP. Whoever sends something gets a socket of his own towards the guest, for as long as it
is used; what comes back on that goes back to him.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Any

from reconciler.backends.qemu.forwarding.loop import READ, Loop
from reconciler.backends.qemu.forwarding.neighbours import Place, bind_to, find, sweep
from reconciler.backends.qemu.forwarding.room import MOST, Room
from reconciler.backends.qemu.forwarding.rules import Rule

_LARGEST = 1 << 16
_AT_ONCE = 64
_IDLE = 120.0
"""Seconds without a datagram after which a conversation is over."""
_KEPT = 16
"""Datagrams kept until the guest is found."""
_LOOKS = (0.1, 0.4, 1.0, 2.0, 2.0, 2.0)
"""Seconds between the looks around for a guest that was not found, or does not answer."""

Client = tuple[Any, ...]
"""An address, as ``recvfrom`` tells it."""


class Datagrams:
    """The socket of one rule, and the conversations that came in on it."""

    def __init__(self, loop: Loop, room: Room, rule: Rule, sock: socket.socket) -> None:
        self.rule = rule
        self._loop, self._room, self._sock = loop, room, sock
        self._talks: dict[Client, _Talk] = {}
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._ready)
        loop.later(_IDLE, self._tidy)

    def close(self) -> None:
        """All of it: there is no telling when a conversation is over."""
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        for client in list(self._talks):
            self._end(client)

    def answer(self, data: bytes, client: Client) -> None:
        """Back to whom it is for. What the host does not take at once is lost, as datagrams are."""
        with suppress(OSError):
            self._sock.sendto(data, client)

    def _ready(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, client = self._sock.recvfrom(_LARGEST)
            except OSError:
                return
            talk = self._talks.get(client)
            if talk is None:
                if (self._room.full or len(self._talks) >= MOST // 2) and not self._end_oldest():
                    continue
                self._room.take()
                talk = self._talks[client] = _Talk(self._loop, self, client)
            talk.send(data)

    def _end_oldest(self) -> bool:
        """Make room for another one: who sends does not have to be who he says, and must not keep others out."""
        oldest = min(self._talks, key=lambda client: self._talks[client].used, default=None)
        if oldest is not None:
            self._end(oldest)
        return oldest is not None

    def _end(self, client: Client) -> None:
        self._talks.pop(client).close()
        self._room.give()

    def _tidy(self) -> None:
        if self._sock.fileno() < 0:
            return
        now = time.monotonic()
        for client, talk in list(self._talks.items()):
            if now - talk.used > _IDLE:
                self._end(client)
        self._loop.later(_IDLE / 4, self._tidy)


class _Talk:
    """One conversation: who began it, and the guest as far as it is found."""

    def __init__(self, loop: Loop, home: Datagrams, client: Client) -> None:
        self._loop, self._home, self._client = loop, home, client
        self._place: Place | None = None
        self._sock: socket.socket | None = None
        self._kept: deque[bytes] = deque(maxlen=_KEPT)
        self._sure = self._closed = False
        self._looks = iter(_LOOKS)
        self.used = time.monotonic()
        self._locate()
        self._look_later()

    def send(self, data: bytes) -> None:
        """To the guest; kept, too, until it is sure that it is there."""
        self.used = time.monotonic()
        if not self._sure:
            self._kept.append(data)
        if self._sock is not None:
            self._out(data)

    def close(self) -> None:
        """It is over."""
        self._closed = True
        self._drop()

    def _out(self, data: bytes) -> None:
        assert self._sock is not None
        try:
            self._sock.send(data)
        except OSError as error:
            if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENODEV, errno.ENETDOWN):
                self._lost()

    def _ready(self, _events: int) -> None:
        if self._sock is None:
            return
        try:
            data = self._sock.recv(_LARGEST)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNREFUSED):
                self._lost()
            return
        self.used = time.monotonic()
        self._sure = True
        self._kept.clear()
        self._home.answer(data, self._client)

    def _lost(self) -> None:
        """It is not there any more."""
        self._drop()
        self._sure = False
        self._looks = iter(_LOOKS)
        self._look_later()

    def _look_later(self) -> None:
        if (pause := next(self._looks, None)) is not None:
            self._loop.later(pause, self._look)

    def _look(self) -> None:
        """As long as it has not answered: is it elsewhere? Then it gets what it has missed."""
        if self._closed or self._sure:
            return
        before = self._place
        self._locate()
        if self._place != before:
            for data in list(self._kept):
                if self._sock is not None:
                    self._out(data)
        sweep(self._home.rule)
        self._look_later()

    def _locate(self) -> None:
        place = next(iter(find(self._home.rule)), None)
        if place is None or place == self._place:
            return
        self._drop()
        try:
            sock = _socket_to(place, self._home.rule.port)
        except OSError:
            return
        self._sock, self._place = sock, place
        self._loop.watch(sock.fileno(), READ, self._ready)

    def _drop(self) -> None:
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
        self._sock = self._place = None


def _socket_to(place: Place, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        bind_to(sock, place[1])
        sock.connect((place[0], port))
    except OSError:
        sock.close()
        raise
    return sock
