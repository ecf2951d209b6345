"""OBSERVE and APPLY, the wire: QMP with deadlines. Asyncio inside, plain calls outside. Only importer of ``qemu.qmp``.

The library's connect and execute wait for ever; a QMP socket serves one client, and a second one gets a connection and
no greeting. So every call here has a deadline, and silence is Unreachable: it says nothing about what is there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from qemu.qmp import ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.events import EventListener

from reconciler.backends.qemu.sockets import Busy, connect
from reconciler.model import Json
from reconciler.problems import BackendError, Interrupted, Problem, Refused, Unreachable

GREETING = 5.0
"""Seconds that a QEMU may take to greet us; a healthy one needs 80 ms."""
ANSWER = 20.0
"""Seconds that a command may take."""
_READ_BUFFER = 16 * 1024 * 1024
T = TypeVar("T")

# The library logs every lost connection as an error; what became of it is what we raise.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
logging.getLogger("qemu.qmp").propagate = False


Command = tuple[str, Mapping[str, Json] | None]
"""A QMP command: its name and its arguments."""


class Monitor:
    """A connection to the QMP monitor at ``path``, for one thread. Raises Unreachable when nobody greets us in time."""

    def __init__(self, path: Path, subject: str, greeting: float = GREETING) -> None:
        self._path = path
        self._subject = subject
        self._greeting = greeting
        self._runner = asyncio.Runner()
        self._client = QMPClient(subject, readbuflen=_READ_BUFFER)

    def __enter__(self) -> Monitor:
        try:
            self._run(_connect(self._client, self._path, self._subject, self._greeting))
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(_disconnect(self._client))
        self._runner.close()

    def execute(self, name: str, arguments: Mapping[str, Json] | None = None, timeout: float = ANSWER) -> Json:
        """Its answer. Raises Refused when QEMU says no, Interrupted when it does not say anything (any more)."""
        return self._run(_execute(self._client, (name, arguments), self._subject, timeout))

    def execute_with(self, handle: int, name: str, arguments: Mapping[str, Json]) -> Json:
        """The same, with a file descriptor handed over (``getfd``, ``add-fd``). Ours stays open."""

        async def send() -> Json:
            try:
                self._client.send_fd_scm(handle)
            except (OSError, QMPError) as error:
                raise _lost(name, self._subject) from error
            return await _execute(self._client, (name, arguments), self._subject, ANSWER)

        return self._run(send())

    def execute_and_wait(
        self,
        name: str,
        events: Collection[str],
        timeout: float,
        arguments: Mapping[str, Json] | None = None,
        accept: Callable[[Mapping[str, Json]], bool] = lambda _: True,
        tolerate: str | None = None,
    ) -> bool:
        """Run a command, then wait for one of the events; whether it came. True too when QEMU ends meanwhile.

        accept: which of these events is meant; tolerate: words of a refusal that means "as asked before": wait on
        """

        async def wait() -> bool:
            with self._client.listener(tuple(events), accept) as listener:
                try:
                    await _execute(self._client, (name, arguments), self._subject, ANSWER)
                except Refused as error:
                    if tolerate is None or tolerate not in error.problem.summary:
                        raise
                return await _next_event(listener, self._client, timeout)

        return self._run(wait())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


def ask_many(
    questions: Mapping[str, tuple[Path, Sequence[Command]]], timeout: float
) -> dict[str, list[Json | BackendError] | BackendError]:
    """Ask many monitors at once, a connection each. ``timeout`` (seconds) is for each of them as a whole.

    For every name the answers in order, a Refused in place of an answer where QEMU said no; or the one error that says
    why this monitor did not answer at all.
    """

    async def everybody() -> list[list[Json | BackendError] | BackendError]:
        return await asyncio.gather(
            *(_ask(name, path, commands, timeout) for name, (path, commands) in questions.items())
        )

    if not questions:
        return {}
    return dict(zip(questions, asyncio.run(everybody()), strict=True))


async def _ask(
    subject: str, path: Path, commands: Sequence[Command], timeout: float
) -> list[Json | BackendError] | BackendError:
    client = QMPClient(subject, readbuflen=_READ_BUFFER)
    try:
        await _connect(client, path, subject, timeout)
        # All of them at once: QEMU answers one after the other, and does not wait for us in between.
        return await asyncio.gather(*(_ask_one(client, command, subject, timeout) for command in commands))
    except BackendError as error:
        return error
    finally:
        await _disconnect(client)


async def _ask_one(client: QMPClient, command: Command, subject: str, timeout: float) -> Json | BackendError:
    try:
        return await _execute(client, command, subject, timeout)
    except Refused as refusal:
        return refusal


async def _connect(client: QMPClient, path: Path, subject: str, timeout: float) -> None:
    sock = await _open(path, subject, timeout)
    try:
        await asyncio.wait_for(client.connect(sock), timeout)
    except TimeoutError as error:
        sock.close()
        raise Unreachable(
            Problem(
                f"QEMU gave no greeting on its monitor within {timeout:g} s",
                subject=subject,
                hint="it is stopped, stuck, or another client holds the monitor; nothing is done to it meanwhile",
            )
        ) from error
    except (QMPError, OSError) as error:
        sock.close()
        raise Unreachable(Problem(f"QEMU hung up on its monitor: {error}", subject=subject)) from error


async def _open(path: Path, subject: str, timeout: float) -> socket.socket:
    """A connection; where others wait in front of us, we wait for room among them."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return connect(path, subject)
        except Busy:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _execute(client: QMPClient, command: Command, subject: str, timeout: float) -> Json:
    try:
        return await asyncio.wait_for(client.execute(command[0], command[1]), timeout)
    except ExecuteError as error:
        raise Refused(Problem(f"QEMU refused {command[0]}: {error}", subject=subject)) from error
    except TimeoutError as error:
        what = f"QEMU did not answer {command[0]} within {timeout:g} s"
        raise Interrupted(Problem(what, subject=subject)) from error
    except (ExecInterruptedError, QMPError, OSError) as error:
        raise _lost(command[0], subject) from error


async def _next_event(listener: EventListener, client: QMPClient, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    event = asyncio.ensure_future(listener.get())
    try:
        # The end of the connection wakes nobody who begins to wait after it: look, too.
        while client.runstate is Runstate.RUNNING and time.monotonic() < deadline:
            if (await asyncio.wait({event}, timeout=0.05))[0]:
                return True
        return client.runstate is not Runstate.RUNNING
    finally:
        event.cancel()
        await asyncio.gather(event, return_exceptions=True)


async def _disconnect(client: QMPClient) -> None:
    # disconnect() raises whatever ended the connection before: we know already, or do not care any more.
    with suppress(QMPError, OSError, EOFError, TimeoutError):
        await asyncio.wait_for(client.disconnect(), 2.0)


def _lost(command: str, subject: str) -> Interrupted:
    return Interrupted(Problem(f"the connection to QEMU was lost during {command}", subject=subject))
