"""APPLY, in a process of its own: the forwarder of one VM. Listens where it is told to, until the VM's QEMU ends.

It is told over a socket that only the VM's owner can reach, one message a request, listening sockets with it:

    list                        → ok, and a line for each rule
    add, and rules              → ok; the sockets come with the message, one for each rule, in that order
    turn, and rules             → ok; they listen already, and lead elsewhere from now on
    remove, and keys of rules   → ok
    ask, and cards' addresses   → ok; a card's MAC, and IPv4 addresses at which it may be

Anything else is answered with "no" and a reason.
"""

from __future__ import annotations

import array
import os
import socket

from reconciler.backends.qemu.forwarding.datagrams import Datagrams
from reconciler.backends.qemu.forwarding.loop import READ, Loop
from reconciler.backends.qemu.forwarding.neighbours import suggest
from reconciler.backends.qemu.forwarding.room import Room
from reconciler.backends.qemu.forwarding.rules import Rule, parse
from reconciler.backends.qemu.forwarding.streams import Listener

MESSAGE = 1 << 17
"""Bytes of a request or an answer."""
MOST_AT_ONCE = 100
"""Rules of one request: the kernel carries some 250 descriptors in one message."""


class Forwarder:
    """The rules of one VM."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self._room = loop, Room()
        self._listeners: dict[str, Listener | Datagrams] = {}

    def answer(self, request: str, handles: list[int]) -> str:
        """Do it, and say how it went."""
        word, *lines = request.split("\n")
        try:
            if word == "add":
                self._add([parse(line) for line in lines], handles)
            elif word == "turn":
                self._turn([parse(line) for line in lines])
            elif word == "remove":
                for key in lines:
                    self._listeners.pop(key).close()
            elif word == "ask":
                for line in lines:
                    card, *addresses = line.split(" ")
                    suggest(card, addresses)
            elif word != "list":
                raise ValueError(word)
        except (ValueError, KeyError, OSError) as error:
            return f"no: {error!r}"
        return "\n".join(["ok", *(str(one.rule) for one in self._listeners.values())])

    def _add(self, rules: list[Rule], handles: list[int]) -> None:
        if len(rules) != len(handles) or any(rule.key in self._listeners for rule in rules):
            raise ValueError("a socket for each new rule")
        while rules:
            rule = rules.pop(0)
            kind = Listener if rule.protocol == "tcp" else Datagrams
            self._listeners[rule.key] = kind(self._loop, self._room, rule, socket.socket(fileno=handles.pop(0)))

    def _turn(self, rules: list[Rule]) -> None:
        for rule in rules:
            self._listeners[rule.key].rule = rule


def serve(control: int, qemu: int) -> None:
    """Comes back when the process behind the pidfd ``qemu`` has ended."""
    loop = Loop()
    forwarder = Forwarder(loop)
    door = socket.socket(fileno=control)
    door.setblocking(False)

    def end(_events: int) -> None:
        loop.running = False

    def let_in(_events: int) -> None:
        try:
            caller, _ = door.accept()
        except OSError:
            return
        caller.setblocking(False)
        loop.watch(caller.fileno(), READ, lambda _events: hear(caller))

    def hear(caller: socket.socket) -> None:
        handles: list[int] = []
        try:
            request = _receive(caller, handles)
            if request:
                caller.send(forwarder.answer(request, handles).encode())
        except OSError:
            request = ""
        for handle in handles:  # those that nobody has taken
            os.close(handle)
        if not request:
            loop.forget(caller.fileno())
            caller.close()

    loop.watch(qemu, READ, end)
    loop.watch(door.fileno(), READ, let_in)
    loop.run()


def _receive(caller: socket.socket, handles: list[int]) -> str:
    """One request; empty when the caller has left. What came with it is added to ``handles``."""
    room = socket.CMSG_SPACE(MOST_AT_ONCE * 4)
    data, extra, _, _ = caller.recvmsg(MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, body in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(body[: len(body) - len(body) % numbers.itemsize])
            handles += numbers
    return data.decode("utf-8", "replace")
