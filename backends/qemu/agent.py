"""APPLY and exec, inside the guest: qemu-guest-agent over its socket, every call with a deadline.

The channel has no greeting and no connection that means anything: whether an agent listens shows only when it answers.
While nobody is connected the agent looks for us ten times a second, no more: so a connection is kept for a moment, for
whatever this process asks next; and not for long, for the channel serves one client at a time.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Timer
from types import TracebackType
from typing import Any, BinaryIO

from reconciler.backends.qemu.sockets import connect
from reconciler.model import Json
from reconciler.polling import readable
from reconciler.problems import GuestFailed, Interrupted, Problem, Refused, Unreachable

_CHUNK = 256 * 1024
_READ = 48 * 1024
_LIMIT = 64 * 1024 * 1024
_POLL = (0.005, 0.5)
"""How often the end of a command is asked for: seconds at first, and at most."""
_TURN = 60.0
"""Seconds until it is our turn again, when others have come in between."""
_KEPT_FOR, _LONGEST = 0.25, 1.0
"""Seconds that a connection is kept while nobody uses it, and may be used for before that: others have their turn."""
_CALL = "its name being called"
_NO_CHILD = "Failed to execute child process"
_NOT_RUN = {"No such file or directory": 127, "Permission denied": 126}


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command in the guest ended. code: 128+n when signal n ended it."""

    code: int
    out: bytes
    err: bytes


class NotRun(Refused):
    """The guest has no such program, or may not run it."""

    @property
    def code(self) -> int:
        """What a shell's exit code would be."""
        return next(code for words, code in _NOT_RUN.items() if self.problem.summary.endswith(f": {words}"))


_kept: dict[Path, tuple[socket.socket, float]] = {}
"""Connections that nobody uses just now, and when each was made."""
_keeping = Lock()


def _forget() -> None:
    """In a child that was forked: as long as it, too, had them open, nobody else would be heard."""
    while _kept:
        _kept.popitem()[1][0].close()
    _keeping.release()


os.register_at_fork(before=_keeping.acquire, after_in_parent=_keeping.release, after_in_child=_forget)


def expect(path: Path, subject: str) -> None:
    """Somebody will ask for the agent there in a moment: it is to have taken notice of us by then."""
    if path not in _kept:
        with suppress(Unreachable):
            _keep(path, connect(path, subject), time.monotonic())


def _keep(path: Path, sock: socket.socket, since: float) -> None:
    """For whoever in this process asks next; soon closed, so that others can ask."""
    kept = (sock, since)
    with _keeping:
        before, _kept[path] = _kept.get(path), kept
    if before is not None:
        before[0].close()
    timer = Timer(_KEPT_FOR, _let_go, (path, kept))
    timer.daemon = True
    timer.start()


def _let_go(path: Path, kept: tuple[socket.socket, float]) -> None:
    with _keeping:
        if _kept.get(path) is not kept:
            return  # it is in use again, or was, and has a later end
        del _kept[path]
    kept[0].close()


class Agent:
    """A session with the agent behind the socket at ``path``. Unreachable when none answers within ``patience``.

    keep: its connection, for a moment, for the next one of this process
    """

    def __init__(self, path: Path, subject: str, patience: float = 3.0, keep: bool = True) -> None:
        self._path = path
        self._subject = subject
        self._patience = patience
        self._keeps = keep
        self._buffer = bytearray()

    def __enter__(self) -> Agent:
        deadline = time.monotonic() + self._patience
        with _keeping:
            kept = _kept.pop(self._path, None)
        if kept is None or not self._is_begun(*kept, deadline):
            self._begin(connect(self._path, self._subject), time.monotonic(), deadline)
        return self

    def _is_begun(self, sock: socket.socket, since: float, deadline: float) -> bool:
        """With a connection that was kept; False when it was to a QEMU that is no more."""
        try:
            self._begin(sock, since, deadline)
        except (Unreachable, Interrupted):
            if time.monotonic() >= deadline:
                raise
            return False
        return True

    def _begin(self, sock: socket.socket, since: float, deadline: float) -> None:
        self._socket, self._since = sock, since
        try:
            self._synchronise(deadline)
        except BaseException:
            sock.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_idle = error is None or isinstance(error, Refused | GuestFailed)  # every answer came, were it a no
        if self._keeps and is_idle and time.monotonic() - self._since < _LONGEST:
            _keep(self._path, self._socket, self._since)
        else:
            self._socket.close()

    def execute(self, name: str, arguments: Mapping[str, Json] | None = None, timeout: float = 10.0) -> Json:
        """Its answer. Raises Refused when the agent says no, Interrupted when it says nothing."""
        deadline = time.monotonic() + timeout
        self._send({"execute": name, "arguments": arguments or {}}, deadline)
        answer = self._receive(deadline, name)
        if "error" in answer:
            with self.sense(name):
                words = str(answer["error"]["desc"])
            raise Refused(Problem(f"the guest agent refused {name}: {words}", subject=self._subject))
        return answer.get("return")

    @contextmanager
    def sense(self, name: str) -> Iterator[None]:
        """Around the taking apart of its answer to ``name``: Interrupted where that is not what it is to be.

        Not Refused: who takes a no for "there is none" is not to take this for it.
        """
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Interrupted(
                Problem(f"the guest agent's answer to {name} is garbled", subject=self._subject)
            ) from error

    def tell(self, name: str, arguments: Mapping[str, Json] | None = None) -> None:
        """Say it without waiting: for what ends the guest and is never answered."""
        self._send({"execute": name, "arguments": arguments or {}}, time.monotonic() + self._patience)

    def run(
        self,
        command: Sequence[str],
        timeout: float | None,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        signals: Callable[[], Sequence[int]] = lambda: (),
    ) -> Finished:
        """Run a command to its end. ``timeout`` in seconds; Interrupted when it is over: it may still be running.

        signals: takes those that came meanwhile and are the command's

        NotRun when the guest cannot start it at all.
        """
        arguments: dict[str, Json] = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
        if environment:
            arguments["env"] = [f"{key}={value}" for key, value in environment.items()]
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        try:
            answer = self.execute("guest-exec", arguments)
        except Refused as error:
            raise self._not_run(command[0], error) from error
        with self.sense("guest-exec"):
            pid = int(answer["pid"])
        return self._await(pid, command, timeout, signals)

    def _not_run(self, program: str, error: Refused) -> Refused:
        said = error.problem.summary
        why = next((words for words in _NOT_RUN if _NO_CHILD in said and words in said.rpartition("(")[2]), None)
        return error if why is None else NotRun(Problem(f"{program}: {why}", subject=self._subject))

    def write_file(self, path: str, data: bytes | BinaryIO) -> None:
        """Create or replace the file's contents."""
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        handle = self.execute("guest-file-open", {"path": path, "mode": "w"})
        try:
            while part := source.read(_CHUNK):
                chunk = base64.b64encode(part).decode()
                written = self.execute("guest-file-write", {"handle": handle, "buf-b64": chunk}, timeout=30.0)
                with self.sense("guest-file-write"):
                    count = int(written["count"])
                if count != len(part):
                    raise Refused(Problem(f"{path}: the guest could not write all of it", subject=self._subject))
        finally:
            self.execute("guest-file-close", {"handle": handle})

    def read_file(self, path: str, limit: int = 1024 * 1024) -> bytes:
        """At most ``limit`` bytes of a file."""
        data = bytearray()
        for part in self.parts_of_file(path):
            data += part
            if len(data) >= limit:
                break
        return bytes(data[:limit])

    def parts_of_file(self, path: str) -> Iterator[bytes]:
        """A file's contents, piece by piece."""
        handle = self.execute("guest-file-open", {"path": path, "mode": "r"})
        try:
            while True:
                answer = self.execute("guest-file-read", {"handle": handle, "count": _READ})
                with self.sense("guest-file-read"):
                    part, is_last = base64.b64decode(answer["buf-b64"]), answer["eof"] or not answer["count"]
                yield part
                if is_last:
                    return
        finally:
            self.execute("guest-file-close", {"handle": handle})

    def _await(
        self, pid: int, command: Sequence[str], timeout: float | None, signals: Callable[[], Sequence[int]]
    ) -> Finished:
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _POLL[0]
        while True:
            status = self.execute("guest-exec-status", {"pid": pid})
            with self.sense("guest-exec-status"):
                if status["exited"]:
                    return finished(status)
            for number in signals():
                words = ["-c", 'kill -"$1" "$2"', "sh", str(number), str(pid)]
                self.execute("guest-exec", {"path": "/bin/sh", "arg": words})
            if deadline is not None and time.monotonic() > deadline:
                what = f"{command[0]}: did not end within {timeout:g} s"
                raise Interrupted(Problem(what, subject=self._subject))
            self._rest(pause)
            pause = min(pause * 1.5, _POLL[1])

    def _rest(self, pause: float) -> None:
        """Wait a little. A channel serves one client at a time: over a long command others are let in between."""
        if pause < _POLL[1]:
            # Nothing is sent to us unasked: this ends early only when the guest goes away.
            readable([self._socket], pause)
            return
        self._socket.close()
        Event().wait(pause)
        try:
            self._socket, self._since = connect(self._path, self._subject), time.monotonic()
        except Unreachable as error:
            raise self._gone() from error
        self._buffer.clear()
        self._synchronise(time.monotonic() + _TURN)

    def _synchronise(self, deadline: float) -> None:
        """Whatever an earlier client left half-said or half-read ends here: 0xFF resets the agent's parser and ours."""
        token = random.getrandbits(31)
        self._socket_send(b"\xff", deadline)
        self._send({"execute": "guest-sync-delimited", "arguments": {"id": token}}, deadline)
        while time.monotonic() < deadline:  # a guest that never stops talking is no agent
            line = self._line(deadline, _CALL).rpartition(b"\xff")[2]
            with suppress(ValueError, RecursionError, AttributeError):  # what was meant for another, or for nobody
                if json.loads(line).get("return") == token:
                    return
        raise self._silent(_CALL)

    def _send(self, message: Mapping[str, Json], deadline: float) -> None:
        self._socket_send(json.dumps(message).encode() + b"\n", deadline)

    def _socket_send(self, data: bytes, deadline: float) -> None:
        try:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            self._socket.sendall(data)
        except (OSError, TimeoutError) as error:
            raise self._silent("a request") from error

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        line = self._line(deadline, what, after=True)
        with self.sense(what):
            try:
                answer: dict[str, Any] = {**json.loads(line)}
            except RecursionError as error:
                raise ValueError from error
        return answer

    def _line(self, deadline: float, what: str, after: bool = False) -> bytes:
        while b"\n" not in self._buffer:
            try:
                self._socket.settimeout(max(0.01, deadline - time.monotonic()))
                data = self._socket.recv(_CHUNK)
            except TimeoutError as error:
                raise self._silent(what, after) from error
            except OSError as error:
                raise self._gone() from error
            if not data or len(self._buffer) > _LIMIT:
                raise self._gone()
            self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def _gone(self) -> Interrupted:
        return Interrupted(Problem("the guest went away", subject=self._subject))

    def _silent(self, what: str, after: bool = False) -> Interrupted | Unreachable:
        problem = Problem(
            f"the guest agent did not answer {what}",
            subject=self._subject,
            hint="is qemu-guest-agent installed and running in the guest?",
        )
        return Interrupted(problem) if after else Unreachable(problem)


def finished(status: Mapping[str, Any]) -> Finished:
    """What ``guest-exec-status`` says, in our words."""
    code = status["exitcode"] if "exitcode" in status else 128 + int(status.get("signal", 0))
    out, err = (base64.b64decode(status.get(key, "")) for key in ("out-data", "err-data"))
    return Finished(int(code), out, err)


def is_answering(path: Path, subject: str, patience: float) -> bool:
    """Whether an agent answers within ``patience`` seconds."""
    try:
        with Agent(path, subject, patience):
            return True
    except (Unreachable, Interrupted):
        return False
