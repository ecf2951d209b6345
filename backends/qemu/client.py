"""OBSERVE and APPLY, the line to QEMU's monitor: QMP with deadlines.

A QMP socket serves one client, and a second one gets a connection and no greeting. So every call here has a deadline,
and silence is Unreachable: it says nothing about what is there.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any

from reconciler.backends.qemu.sockets import Busy, connect
from reconciler.backends.qemu.wire import BEGIN, Command, Lost, Wire, command, is_greeting, is_welcome, wait
from reconciler.model import Json
from reconciler.problems import BackendError, Interrupted, Problem, Refused, Unreachable

__all__ = ["Command", "Monitor", "ask_many"]

GREETING = 5.0
"""Seconds that a QEMU may take to greet us; a healthy one needs less than one of a thousand."""
ANSWER = 20.0
"""Seconds that a command may take."""
_CROWD = 0.05
"""Seconds between two looks for room, where many wait to be heard."""


class Monitor:
    """A connection to the QMP monitor at ``path``, for one thread. Raises Unreachable when nobody greets us in time."""

    def __init__(self, path: Path, subject: str, greeting: float = GREETING) -> None:
        self._path = path
        self._subject = subject
        self._greeting = greeting
        self._number = 0
        self._come: deque[dict[str, Any]] = deque()

    def __enter__(self) -> Monitor:
        deadline = time.monotonic() + self._greeting
        self._wire = Wire(_open(self._path, self._subject, deadline))
        try:
            self._begin(deadline)
        except Lost as error:
            raise _hung_up(self._subject, error) from error
        except BaseException:
            self._wire.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.close()

    def execute(self, name: str, arguments: Mapping[str, Json] | None = None, timeout: float = ANSWER) -> Json:
        """Its answer. Raises Refused when QEMU says no, Interrupted when it does not say anything (any more)."""
        return self._execute(name, arguments, timeout)

    def execute_with(self, handle: int, name: str, arguments: Mapping[str, Json]) -> Json:
        """The same, with a file descriptor handed over (``getfd``, ``add-fd``). Ours stays open."""
        return self._execute(name, arguments, ANSWER, handle)

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
        heard: list[dict[str, Any]] = []
        try:
            self._execute(name, arguments, ANSWER, heard=heard)
        except Refused as error:
            if tolerate is None or tolerate not in error.problem.summary:
                raise
        deadline = time.monotonic() + timeout
        self._come.extendleft(reversed(heard))
        try:
            while (said := self._next(deadline)) is not None:
                if said.get("event") in events and accept(said):
                    return True
        except Lost:
            return True
        return False

    def _begin(self, deadline: float) -> None:
        """Be greeted, and answer it."""
        self._until(is_greeting, deadline)
        self._wire.send(BEGIN)
        self._until(is_welcome, deadline)

    def _until(self, is_meant: Callable[[Mapping[str, Any]], bool], deadline: float) -> None:
        while (said := self._next(deadline)) is not None:
            if is_meant(said):
                return
            if "event" not in said:
                self._wire.close()
                raise Lost("it does not speak QMP")
        raise _silent(self._subject, self._greeting)

    def _execute(
        self,
        name: str,
        arguments: Mapping[str, Json] | None,
        timeout: float,
        handle: int | None = None,
        heard: list[dict[str, Any]] | None = None,
    ) -> Json:
        """heard: takes the events that come before the answer"""
        self._number += 1
        deadline = time.monotonic() + timeout
        try:
            self._wire.send(command(name, arguments, self._number), handle)
            while (said := self._next(deadline)) is not None:
                if said.get("id") == self._number:
                    return _answer(said, name, self._subject)
                if heard is not None and "event" in said:
                    heard.append(said)
        except Lost as error:
            raise _lost(name, self._subject) from error
        raise _unanswered(name, self._subject, timeout)

    def _next(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None when there is none by the deadline."""
        while not self._come:
            if not wait([self._wire], deadline) or time.monotonic() > deadline:  # who never stops talking is cut off
                return None
            self._come.extend(self._wire.receive())
        return self._come.popleft()


def ask_many(
    questions: Mapping[str, tuple[Path, Sequence[Command]]], timeout: float
) -> dict[str, list[Json | BackendError] | BackendError]:
    """Ask many monitors at once, a connection each. ``timeout`` (seconds) is for each of them as a whole.

    For every name the answers in order, a Refused in place of an answer where QEMU said no; or the one error that says
    why this monitor did not answer at all.
    """
    deadline = time.monotonic() + timeout
    asking = [_Asking(name, path, commands, timeout) for name, (path, commands) in questions.items()]
    while left := [one for one in asking if one.outcome is None]:
        for one in left:
            one.go_on()
        waiting = {id(one.wire): one for one in left if one.wire is not None and one.outcome is None}
        crowded = any(one.wire is None and one.outcome is None for one in left)
        until = min(deadline, time.monotonic() + _CROWD) if crowded else deadline
        if waiting:
            for wire in wait([one.wire for one in waiting.values() if one.wire is not None], until):
                waiting[id(wire)].hear()
        elif crowded:
            Event().wait(_CROWD)
        if time.monotonic() >= deadline:
            break
    return {one.subject: one.end() for one in asking}


class _Asking:
    """One of many that are asked. All questions are sent at once: QEMU does not wait for us between them.

    outcome: as ``ask_many`` tells it; None while it is awaited
    """

    def __init__(self, subject: str, path: Path, commands: Sequence[Command], timeout: float) -> None:
        self.subject = subject
        self.wire: Wire | None = None
        self.outcome: list[Json | BackendError] | BackendError | None = None
        self._path, self._commands, self._timeout = path, commands, timeout
        self._greeted = self._begun = False
        self._answers: dict[int, Json | BackendError] = {}

    def go_on(self) -> None:
        """Find somebody to ask."""
        if self.wire is not None:
            return
        try:
            self.wire = Wire(connect(self._path, self.subject))
        except Busy:
            return
        except BackendError as error:
            self.outcome = error

    def hear(self) -> None:
        """Take in what has come."""
        assert self.wire is not None
        try:
            for said in self.wire.receive():
                self._take(said)
        except Lost as error:
            self._lose(error)
        if self._begun and len(self._answers) == len(self._commands):
            self.outcome = [self._answers[number] for number in range(len(self._commands))]
            self.wire.close()

    def end(self) -> list[Json | BackendError] | BackendError:
        """What came of it; the time is over for whoever has not said everything."""
        if self.outcome is None:
            self.outcome = self._late()
        if self.wire is not None:
            self.wire.close()
        return self.outcome

    def _take(self, said: dict[str, Any]) -> None:
        if "event" in said:
            return
        if not self._greeted:
            if not is_greeting(said):
                raise Lost("it does not speak QMP")
            self._greeted = True
            self._ask()
        elif not self._begun:
            if not is_welcome(said):
                raise Lost("it does not speak QMP")
            self._begun = True
        elif isinstance(number := said.get("id"), int) and 0 <= number < len(self._commands):
            self._answers[number] = self._answer(said, number)

    def _ask(self) -> None:
        assert self.wire is not None
        self.wire.send(BEGIN)
        for number, (name, arguments) in enumerate(self._commands):
            self.wire.send(command(name, arguments, number))

    def _answer(self, said: dict[str, Any], number: int) -> Json | BackendError:
        try:
            return _answer(said, self._commands[number][0], self.subject)
        except Refused as refusal:
            return refusal

    def _lose(self, error: Lost) -> None:
        self.outcome = _lost(self._next_name(), self.subject) if self._begun else _hung_up(self.subject, error)

    def _late(self) -> BackendError:
        if self.wire is None:
            what = f"{self._path.name}: too many others wait for it"
            return Busy(Problem(what, subject=self.subject))
        if not self._begun:
            return _silent(self.subject, self._timeout)
        return _unanswered(self._next_name(), self.subject, self._timeout)

    def _next_name(self) -> str:
        return next((one[0] for number, one in enumerate(self._commands) if number not in self._answers), "the end")


def _open(path: Path, subject: str, deadline: float) -> socket.socket:
    """A connection; where others wait in front of us, we wait for room among them."""
    while True:
        try:
            return connect(path, subject)
        except Busy:
            if time.monotonic() > deadline:
                raise
            Event().wait(_CROWD)


def _answer(said: Mapping[str, Any], name: str, subject: str) -> Json:
    if "error" in said:
        error = said["error"]
        words = error.get("desc") if isinstance(error, dict) else error
        raise Refused(Problem(f"QEMU refused {name}: {words}", subject=subject))
    return said.get("return")


def _silent(subject: str, timeout: float) -> Unreachable:
    hint = "it is stopped, stuck, or another client holds the monitor; nothing is done to it meanwhile"
    what = f"QEMU gave no greeting on its monitor within {timeout:g} s"
    return Unreachable(Problem(what, subject=subject, hint=hint))


def _hung_up(subject: str, why: Lost) -> Unreachable:
    return Unreachable(Problem(f"QEMU hung up on its monitor: {why}", subject=subject))


def _unanswered(command: str, subject: str, timeout: float) -> Interrupted:
    return Interrupted(Problem(f"QEMU did not answer {command} within {timeout:g} s", subject=subject))


def _lost(command: str, subject: str) -> Interrupted:
    return Interrupted(Problem(f"the connection to QEMU was lost during {command}", subject=subject))
