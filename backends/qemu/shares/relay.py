"""APPLY, in a process of its own: between a QEMU and the virtiofsd of one share. Imports nothing of ours but chamber.

A guest whose request is never answered waits for ever, and so does whoever wants to unmount the share or to take the
device out. So when the daemon dies, QEMU does not notice: it is spoken to from here. Everything that QEMU told the
daemon is told to a new one, which finds the guest's open requests in the guest's memory. It knows nothing of what the
guest has open, and answers each of them with an error: now the guest lets go, and the next apply can do its work.

The lock ``served`` is the first daemon's alone: whoever looks sees by it that the share is not what it was.

What it is started with:

    {"line": 3, "served": 4, "source": 5, "folder": "/…", "chamber": {…}}

What passes is vhost-user: messages of a head (request, flags, size: 4 bytes each), what it says of, and descriptors.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

_HEAD = struct.Struct("<III")
_LONGEST, _MOST_HANDLES = 1 << 16, 64
_REPLY, _NEEDS_REPLY = 1 << 2, 1 << 3
_FEATURES, _OWNER, _RESET_OWNER, _MEMORY, _ADD_MEMORY, _REMOVE_MEMORY, _RESET = 2, 3, 4, 5, 37, 38, 34
_PROTOCOL, _BACKWARDS = 16, 21
_SIZE, _ADDRESSES, _BASE, _STOP, _KICK, _CALL, _ERROR, _ENABLE = 8, 9, 10, 11, 12, 13, 14, 18
_QUEUE = (_SIZE, _BASE, _ADDRESSES, _CALL, _ERROR, _KICK, _ENABLE)
"""What is said of each queue, in the order in which a daemon has to hear it."""
_NUMBERED_IN_A_BYTE = (_KICK, _CALL, _ERROR)
_REGION = struct.Struct("<QQQQ")
"""A piece of the guest's memory: where the guest has it, its size, where QEMU has it, where it is in the file."""
_QUESTIONS = (1, _STOP, 15, 17, 24)
"""Features, where a queue stands, protocol features, how many queues, configuration."""
_MOST_DEATHS = 8


class Message(NamedTuple):
    """One message, with the descriptors that came along."""

    request: int
    flags: int
    body: bytes
    handles: Sequence[int] = ()

    @property
    def queue(self) -> int:
        """Which queue it is about."""
        return self.body[0] if self.request in _NUMBERED_IN_A_BYTE else int.from_bytes(self.body[:4], "little")


class Region(NamedTuple):
    """A piece of the guest's memory, as QEMU calls it, and the file that it lies in."""

    size: int
    address: int
    offset: int
    handle: int


class Told:
    """What QEMU has told the daemon, as far as another one has to hear it."""

    def __init__(self) -> None:
        self._general: dict[int, Message] = {}
        self._memory: dict[bytes, Message] = {}
        self._queues: dict[int, dict[int, Message]] = {}

    @property
    def is_running(self) -> bool:
        """Whether the guest uses it."""
        return any(_KICK in one for one in self._queues.values())

    def note(self, said: Message) -> None:
        """Keep what counts of it, in place of what it replaces."""
        if said.request in (_FEATURES, _OWNER, _PROTOCOL, _BACKWARDS):
            self._replace(self._general, said.request, said)
        elif said.request == _MEMORY:
            self._forget_memory()
            self._memory[b""] = said
        elif said.request in (_ADD_MEMORY, _REMOVE_MEMORY):
            key = said.body[8:32]
            _close(self._memory.pop(key, None))
            if said.request == _ADD_MEMORY:
                self._memory[key] = said
            else:
                _close(said)
        elif said.request in _QUEUE:
            self._replace(self._queues.setdefault(said.queue, {}), said.request, said)
        elif said.request == _STOP:
            queue = self._queues.get(said.queue, {})
            for request in (_KICK, _ENABLE):
                _close(queue.pop(request, None))
            _close(said)
        elif said.request in (_RESET_OWNER, _RESET):
            for queue in self._queues.values():
                for one in queue.values():
                    _close(one)
            self._queues.clear()
        else:
            _close(said)

    def again(self) -> list[Message]:
        """All of it, for a new daemon: nothing asks for an answer, and each queue begins where the old one ended."""
        order = [self._general[one] for one in (_OWNER, _FEATURES, _PROTOCOL, _BACKWARDS) if one in self._general]
        order += self._memory.values()
        for number, queue in sorted(self._queues.items()):
            for request in _QUEUE:
                if request in queue:
                    order.append(self._begin(number, queue) if request == _BASE else queue[request])
        return [one._replace(flags=one.flags & ~_NEEDS_REPLY) for one in order]

    def kick(self) -> None:
        """Have the new daemon look at what is in the queues."""
        for queue in self._queues.values():
            for handle in queue[_KICK].handles if _KICK in queue else ():
                os.write(handle, (1).to_bytes(8, "little"))

    def _begin(self, number: int, queue: dict[int, Message]) -> Message:
        """The first request that has no answer: as many as there are answers have one, for they are given in order."""
        if _ADDRESSES in queue:
            used = struct.unpack_from("<IIQQ", queue[_ADDRESSES].body)[3]
            for region in self._regions():
                if region.address <= used < region.address + region.size:
                    place = region.offset + used - region.address
                    answered = int.from_bytes(os.pread(region.handle, 2, place + 2), "little")
                    return queue[_BASE]._replace(body=struct.pack("<II", number, answered))
        return queue[_BASE]

    def _regions(self) -> list[Region]:
        found = []
        for key, said in self._memory.items():
            for index, handle in enumerate(said.handles):
                _, size, address, offset = _REGION.unpack_from(said.body, 8 + (0 if key else index * _REGION.size))
                found.append(Region(size, address, offset, handle))
        return found

    def _replace(self, where: dict[int, Message], key: int, said: Message) -> None:
        _close(where.pop(key, None))
        where[key] = said

    def _forget_memory(self) -> None:
        for one in self._memory.values():
            _close(one)
        self._memory.clear()


class Relay:
    """One share: QEMU at one end, a daemon at the other."""

    def __init__(self, wanted: dict[str, object]) -> None:
        self._wanted = wanted
        self._qemu = socket.socket(fileno=int(str(wanted["line"])))
        for name in ("line", "served", "source"):
            os.set_inheritable(int(str(wanted[name])), False)
        self._told = Told()
        self._asked: Message | None = None

    def run(self) -> None:
        """Until QEMU lets go; or until no daemon can be had."""
        daemon = self._start(first=True)
        for _ in range(_MOST_DEATHS):
            if not self._pass_on(daemon) or not self._told.is_running:
                break
            daemon.close()
            daemon = self._start(first=False)
            self._tell_again(daemon)
        daemon.close()
        self._qemu.close()
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)

    def _pass_on(self, daemon: socket.socket) -> bool:
        """Until one end is gone; whether that is the daemon's."""
        poll = select.poll()
        for sock in (self._qemu, daemon):
            poll.register(sock, select.POLLIN)
        while True:
            for handle, _ in poll.poll():
                if handle == self._qemu.fileno():
                    said = _receive(self._qemu)
                    if said is None:
                        return False
                    self._asked = said if _is_question(said) else None
                    sent = _send(daemon, said)
                    self._told.note(said)
                    if not sent:
                        return True
                else:
                    said = _receive(daemon)
                    if said is None:
                        return True
                    self._asked = None
                    _send(self._qemu, said)
                    _close(said)

    def _tell_again(self, daemon: socket.socket) -> None:
        for one in self._told.again():
            _send(daemon, one)
        if (asked := self._asked) is not None:
            if asked.request in _QUESTIONS:
                _send(daemon, asked)
            else:  # that it was heard
                _send(self._qemu, Message(asked.request, 1 | _REPLY, bytes(8)))
        self._told.kick()

    def _start(self, first: bool) -> socket.socket:
        """A daemon, and the line to it. The line is there before the daemon is: nobody else can have it."""
        os.chdir(str(self._wanted["folder"]))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            with suppress(FileNotFoundError):
                os.unlink("line")
            listener.bind("line")
            listener.listen(1)
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            line.connect("line")
            os.unlink("line")
            os.chdir("/")
            if os.fork() == 0:
                self._become(listener.fileno(), first)
        if first:
            os.close(int(str(self._wanted["served"])))
        return line

    def _become(self, listener: int, first: bool) -> None:
        try:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            wanted = dict(self._wanted["chamber"])  # type: ignore[call-overload]
            wanted["argv"] = [f"--fd={listener}" if word == "--fd=" else word for word in wanted["argv"]]
            for handle in (listener, *([int(str(self._wanted["served"]))] if first else [])):
                os.set_inheritable(handle, True)
            # Only here: what shutting in needs, the relay need not have in its memory.
            from reconciler.backends.qemu.shares.chamber import become

            become(wanted)
        except SystemExit as error:
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(1)


def _receive(sock: socket.socket) -> Message | None:
    """The next message; None at the end."""
    try:
        head, handles, _, _ = socket.recv_fds(sock, _HEAD.size, _MOST_HANDLES, socket.MSG_CMSG_CLOEXEC)
        head += _rest(sock, _HEAD.size - len(head)) if head else b""
        if not head:
            return None
        request, flags, size = _HEAD.unpack(head)
        if size > _LONGEST:
            return None
        return Message(request, flags, _rest(sock, size), tuple(handles))
    except (OSError, EOFError):
        return None


def _rest(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _send(sock: socket.socket, said: Message) -> bool:
    """Whether the other end took it."""
    data = _HEAD.pack(said.request, said.flags, len(said.body)) + said.body
    try:
        done = socket.send_fds(sock, [data], list(said.handles))
        sock.sendall(data[done:])
    except OSError:
        return False
    return True


def _is_question(said: Message) -> bool:
    return bool(said.flags & _NEEDS_REPLY) or said.request in _QUESTIONS


def _close(said: Message | None) -> None:
    for handle in said.handles if said is not None else ():
        with suppress(OSError):
            os.close(handle)
