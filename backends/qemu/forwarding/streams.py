"""APPLY, in the forwarder: TCP. A connection is taken, the guest found, bytes are carried, each way for itself."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from reconciler.backends.qemu.forwarding.loop import BROKEN, READ, WRITE, Loop
from reconciler.backends.qemu.forwarding.neighbours import Place, bind_to, find, sweep
from reconciler.backends.qemu.forwarding.room import Room
from reconciler.backends.qemu.forwarding.rules import Rule

_CHUNK = 1 << 16
_AT_ONCE = 16
"""Connections taken before others get their turn."""
_PATIENCE, _DOUBT, _RACING = 10.0, 0.3, 3
"""Seconds to find the guest; seconds after which other addresses are tried beside; how many at once."""
_OPTIONS = ((socket.TCP_NODELAY, 1), (socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))


class Listener:
    """A listening socket of one rule."""

    def __init__(self, loop: Loop, room: Room, rule: Rule, sock: socket.socket) -> None:
        self.rule = rule
        self._loop, self._room, self._sock = loop, room, sock
        sock.setblocking(False)
        room.enter(self)
        self.listen()

    def listen(self) -> None:
        """Take connections while there is room for them; those that come meanwhile wait."""
        self._loop.watch(self._sock.fileno(), 0 if self._room.full else READ, self._ready)

    def close(self) -> None:
        """Take none any more. Those that stand go on."""
        self._room.leave(self)
        self._loop.forget(self._sock.fileno())
        self._sock.close()

    def _ready(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            if self._room.full:
                return
            try:
                client, _ = self._sock.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._loop.forget(self._sock.fileno())
                    self._loop.later(1.0, self._again)
                return
            self._room.take()
            Reach(self._loop, self.rule, partial(self._found, client))

    def _again(self) -> None:
        if self._sock.fileno() >= 0:
            self.listen()

    def _found(self, client: socket.socket, guest: socket.socket | None) -> None:
        if guest is None:
            reset(client)
            self._room.give()
        else:
            Carriage(self._loop, self._room, client, guest)


class Reach:
    """A connection to the guest, by whichever of its addresses answers first; ``done`` gets it, or None."""

    def __init__(self, loop: Loop, rule: Rule, done: Callable[[socket.socket | None], None]) -> None:
        self._loop, self._rule, self._done = loop, rule, done
        self._deadline = time.monotonic() + _PATIENCE
        self._racing: dict[int, tuple[Place, socket.socket]] = {}
        self._over = False
        self._try()
        if not self._over:
            if not self._racing:
                self._ask()
            else:
                loop.later(_DOUBT, self._ask)

    def _ask(self) -> None:
        """It is not where it was last seen, or slow to answer: look around, and look again."""
        if self._over:
            return
        if time.monotonic() > self._deadline:
            self._end(None)
            return
        sweep(self._rule)
        self._loop.later(0.1, self._try)
        self._loop.later(0.5, self._ask)

    def _try(self) -> None:
        if self._over:
            return
        best = find(self._rule)[:_RACING]
        for handle, (place, _) in list(self._racing.items()):
            if place in best:
                best.remove(place)
            else:  # it is the guest's no longer, or better ones are known by now
                self._drop(handle)
        for place in best:
            if not self._over:
                self._set_out(place)

    def _set_out(self, place: Place) -> None:
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return  # too many are open on this host; the next try may do
        handle = sock.fileno()
        self._racing[handle] = (place, sock)
        try:
            bind_to(sock, place[1])
            code = sock.connect_ex((place[0], self._rule.port))
        except OSError as error:
            code = error.errno or errno.EIO
        if code in (0, errno.EINPROGRESS):
            self._loop.watch(handle, WRITE, lambda _events: self._arrived(handle))
        else:
            self._failed(handle, code)

    def _arrived(self, handle: int) -> None:
        sock = self._racing[handle][1]
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(handle, code)
            return
        try:
            sock.getpeername()
        except OSError:
            return  # what was ready bore the same number, and is closed by now
        self._loop.forget(handle)
        del self._racing[handle]
        self._end(sock)

    def _failed(self, handle: int, code: int) -> None:
        self._drop(handle)
        # It is there, and says no. Any other of its addresses that we know has its say still.
        if code == errno.ECONNREFUSED and not self._racing:
            self._end(None)

    def _drop(self, handle: int) -> None:
        self._loop.forget(handle)
        self._racing.pop(handle)[1].close()

    def _end(self, guest: socket.socket | None) -> None:
        self._over = True
        for handle in list(self._racing):
            self._drop(handle)
        self._done(guest)


class Carriage:
    """Two connected sockets, and what is on its way between them. Each direction ends by itself."""

    def __init__(self, loop: Loop, room: Room, client: socket.socket, guest: socket.socket) -> None:
        self._loop, self._room = loop, room
        self._other = {client: guest, guest: client}
        self._waiting = {client: b"", guest: b""}  # for whom → what
        self._ended = {client: False, guest: False}  # who has nothing more to say
        self._told = {client: False, guest: False}  # who was told that the other has nothing more to say
        for sock in self._other:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _OPTIONS:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._watch()

    def _watch(self) -> None:
        for sock, other in self._other.items():
            wants = READ if not self._ended[sock] and not self._waiting[other] else 0
            wants |= WRITE if self._waiting[sock] else 0
            self._loop.watch(sock.fileno(), wants, partial(self._ready, sock))

    def _ready(self, sock: socket.socket, events: int) -> None:
        other = self._other[sock]
        try:
            if events & BROKEN and (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                raise OSError(code, "broken")
            if self._waiting[sock]:
                self._send(sock)
            if not self._ended[sock] and not self._waiting[other]:
                self._receive(sock, other)
        except BlockingIOError:
            pass
        except OSError:
            self._close(reset)
            return
        if all(self._told.values()):
            self._close(socket.socket.close)
        else:
            self._watch()

    def _receive(self, sock: socket.socket, other: socket.socket) -> None:
        data = sock.recv(_CHUNK)
        if data:
            self._waiting[other] = data
        else:
            self._ended[sock] = True
        self._send(other)

    def _send(self, sock: socket.socket) -> None:
        """What waits for it; and then, if the other has nothing more to say, that."""
        if data := self._waiting[sock]:
            with suppress(BlockingIOError):
                self._waiting[sock] = data[sock.send(data) :]
        if not self._waiting[sock] and self._ended[self._other[sock]] and not self._told[sock]:
            self._told[sock] = True
            sock.shutdown(socket.SHUT_WR)

    def _close(self, how: Callable[[socket.socket], None]) -> None:
        for sock in self._other:
            self._loop.forget(sock.fileno())
            how(sock)
        self._room.give()


def reset(sock: socket.socket) -> None:
    """Close it so that the other end takes notice that something went wrong."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
