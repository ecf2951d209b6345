"""One command inside a container, over LXD's exec: used by ``run``, ``ready.command``, ``exec`` and ``shell``."""

from __future__ import annotations

import json
import os
import selectors
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.accounts import Account
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.client.websockets import Message, WebSocket
from reconciler.backends.lxd.deadline import Deadline
from reconciler.passing import Passing
from reconciler.problems import Interrupted, Problem

Sink = Callable[[bytes], None]

MOST = 4 << 20
"""Bytes that are kept of what a command says."""
_CHUNK = 32768
_KILL = 9
_RESIZES = 0.3  # seconds between looks at the terminal's size
_SIDES = ("width", "height")
_AFTERWARDS = 10.0
"""Seconds that LXD has to tell the exit code once the command's output has ended."""


class TookTooLong(Interrupted):
    """The command was still running at its deadline, and was killed."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and where its streams go. stdin: a file descriptor, or None for nothing at all.

    terminal: (columns, lines) for an interactive command, whose output all comes through ``out``
    user, group: numbers in the guest; folder: where it begins, LXD's choice when None
    passing: signals of ours that are the command's
    """

    words: Sequence[str]
    out: Sink
    err: Sink
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: int | None = None
    terminal: tuple[int, int] | None = None
    resized: Callable[[], tuple[int, int] | None] = lambda: None
    user: int = 0
    group: int = 0
    folder: str | None = None
    passing: Passing | None = None


def run(client: Client, name: str, command: Command, within: Deadline | None) -> int:
    """Run it and return its exit code. Raises TookTooLong, Refused (not running, no such command), Unreachable."""
    opening = Deadline.after(30) if within is None else within
    operation = client.start(("instances", name, "exec"), _body(command), opening)
    id, secrets = str(operation["id"]), operation["metadata"]["fds"]
    sockets: dict[str, WebSocket] = {}
    try:
        # The command begins when its streams are connected, control or not; and ends a moment later, maybe.
        for stream in sorted(secrets, key=lambda name: (name != "control", name)):
            sockets[stream] = client.websocket(
                ("operations", id, "websocket"), opening.within(30), secret=secrets[stream]
            )
        _talk(sockets, command, within)
        # Over TLS LXD takes a line that we end first for a failure; with a terminal it waits for just that.
        ended = None if command.terminal else client.wait(id, Deadline.after(_AFTERWARDS))
    finally:
        for one in sockets.values():
            one.close()
    done = ended or client.wait(id, Deadline.after(_AFTERWARDS))
    return int((done.get("metadata") or {}).get("return", -1))


def capture(
    client: Client, name: str, words: Sequence[str], within: Deadline, account: Account | None = None, data: bytes = b""
) -> tuple[int, bytes]:
    """Run it; its exit code, and what it wrote to both outputs, or the end of that.

    account: whom it runs as, None for root; data: what it reads
    """
    output, user, group = Last(), 0, 0
    if account is not None:
        user, group = account.uid, account.gid
    with tempfile.TemporaryFile() as given:
        given.write(data)
        given.seek(0)
        command = Command(words, output.add, output.add, stdin=given.fileno() if data else None, user=user, group=group)
        code = run(client, name, command, within)
    return code, bytes(output.kept[-MOST:])


class Last:
    """What was said last: a command may say anything until its time is up."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def add(self, data: bytes) -> None:
        self.kept += data
        if len(self.kept) > 2 * MOST:
            del self.kept[:-MOST]


def _body(command: Command) -> dict[str, Any]:
    columns, lines = command.terminal or (0, 0)
    identity = {"user": command.user, "group": command.group} if command.user or command.group else {}
    return {
        **identity,
        **({"cwd": command.folder} if command.folder is not None else {}),
        "command": list(command.words),
        "environment": dict(command.environment),
        "wait-for-websocket": True,
        "interactive": command.terminal is not None,
        "width": columns,
        "height": lines,
    }


def _talk(sockets: Mapping[str, WebSocket], command: Command, within: Deadline | None) -> None:
    """Move bytes until the command's outputs have ended."""
    sinks = {"0": command.out} if command.terminal else {"1": command.out, "2": command.err}
    feeder = _Feeder(sockets["0"], command.stdin)
    feeder.start()
    try:
        with selectors.DefaultSelector() as selector:
            for stream, sink in sinks.items():
                selector.register(sockets[stream], selectors.EVENT_READ, stream)
                _deliver(selector, sockets[stream], sink, sockets[stream].pending())
            open_streams = selector.get_map().values
            if command.passing is not None:
                selector.register(command.passing, selectors.EVENT_READ, "signals")
            while any(key.data in sinks for key in open_streams()):
                _one_round(selector, sockets, sinks, command, within)
    finally:
        feeder.stop()


def _one_round(
    selector: selectors.BaseSelector,
    sockets: Mapping[str, WebSocket],
    sinks: Mapping[str, Sink],
    command: Command,
    within: Deadline | None,
) -> None:
    patience = None if within is None else within.left
    if command.terminal is not None:
        patience = _RESIZES if patience is None else min(_RESIZES, patience)
    for key, _ in selector.select(patience):
        if key.fileobj is command.passing:
            _pass_on(sockets["control"], command.passing)
            continue
        socket = sockets[key.data]
        _deliver(selector, socket, sinks[key.data], socket.receive())
    if (size := command.resized()) is not None:
        sides = {side: str(value) for side, value in zip(_SIDES, size, strict=True)}
        _control(sockets["control"], {"command": "window-resize", "args": sides})
    if within is not None and within.passed and any(key.data in sinks for key in selector.get_map().values()):
        _control(sockets["control"], {"command": "signal", "signal": _KILL})
        raise TookTooLong(Problem(f"the command took too long and was killed: {' '.join(command.words)}"))


def _pass_on(control: WebSocket, passing: Passing) -> None:
    for number in passing.take():
        _control(control, {"command": "signal", "signal": number})


def _deliver(selector: selectors.BaseSelector, socket: WebSocket, sink: Sink, messages: Sequence[Message]) -> None:
    ended = socket.closed
    for message in messages:
        if message.text:
            ended = True
        elif message.data:
            sink(message.data)
    if ended and socket in [key.fileobj for key in selector.get_map().values()]:
        selector.unregister(socket)


def _control(socket: WebSocket, order: dict[str, Any]) -> None:
    socket.send(json.dumps(order).encode(), text=True)


class _Feeder:
    """Our stdin → the command's, in a thread: a command that does not read must not keep its output from us."""

    def __init__(self, socket: WebSocket, stdin: int | None) -> None:
        self._socket = socket
        self._stdin = stdin
        self._wake, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._feed, name="exec-stdin", daemon=True)

    def start(self) -> None:
        if self._stdin is None:
            self._socket.send(b"", text=True)
        else:
            self._thread.start()

    def stop(self) -> None:
        os.close(self._bell)  # the reading end becomes readable
        if self._thread.ident is not None:
            self._thread.join(timeout=1)
        os.close(self._wake)

    def _feed(self) -> None:
        assert self._stdin is not None
        with selectors.SelectSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._stdin, selectors.EVENT_READ)
            while True:
                if any(key.fd == self._wake for key, _ in selector.select()):
                    return
                data = os.read(self._stdin, _CHUNK)
                if not data:
                    self._socket.send(b"", text=True)
                    return
                self._socket.send(data)
