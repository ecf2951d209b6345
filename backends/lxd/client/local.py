"""Talk over a unix socket, with the standard library only and connections kept alive.

Importing pylxd costs more than a whole plan that finds nothing to do, each request through it several times what LXD
takes to answer, and its unix adapter opens a new connection for every URL; so only https goes that way (``remote``).
"""

from __future__ import annotations

import http.client
import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.backends.lxd.client.answers import LARGEST, Answer, TooMuch
from reconciler.polling import readable
from reconciler.problems import Interrupted, Problem, Unreachable

KEPT = 16
"""Idle connections that are kept: as many as steps are at work at once, twice."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; ``used`` tells whether it has answered before (and may have gone stale since)."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)
        self.used = False

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        self.sock = connection


class LocalTalk:
    """Requests to one socket; safe for several threads, each of which takes an idle connection or makes one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[UnixConnection] = deque()

    def send(
        self,
        method: str,
        target: str,
        timeout: float,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        most: int = LARGEST,
    ) -> Answer:
        """One request (body: bytes, an open file, an iterator of bytes) and its answer within that many seconds.

        Raises Unreachable when LXD did not get it or was only asked something, Interrupted when it may have got it,
        TooMuch when the answer has more than ``most`` bytes.
        """
        while True:
            connection = self._take(timeout)
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError as error:
                raise self._silence(error) from error
            try:
                answer = _ask(connection, method, target, body, headers or {}, most)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if method != "GET":
                    words = f"LXD at {self._path} got the request and did not answer: {reason(error)}"
                    raise Interrupted(Problem(words)) from error
                if connection.used and not isinstance(error, TimeoutError):
                    continue  # LXD was restarted in this very moment; a fresh connection tells the truth
                raise self._silence(error) from error
            self._give_back(connection)
            return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self, timeout: float) -> UnixConnection:
        """An idle one, but none that LXD has closed meanwhile: what is written into that is lost."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if not readable([connection.sock], 0.0):
                connection.timeout = timeout
                connection.sock.settimeout(timeout)
                return connection
            connection.close()
        return UnixConnection(self._path, timeout)

    def _give_back(self, connection: UnixConnection) -> None:
        connection.used = True
        if connection.sock is not None and len(self._idle) < KEPT:
            self._idle.append(connection)
        else:
            connection.close()

    def _silence(self, error: Exception) -> Unreachable:
        return Unreachable(Problem(f"no answer from LXD at {self._path}: {reason(error)}", hint=hint_for(error)))


def _ask(
    connection: UnixConnection, method: str, target: str, body: Any, headers: Mapping[str, str], most: int
) -> Answer:
    try:
        connection.request(method, target, body, dict(headers))
    except (BrokenPipeError, ConnectionResetError):
        if body is None:
            raise
        # It did not want the rest of the body, and has said why.
    response = connection.getresponse()
    content = response.read(most + 1)
    if len(content) > most:
        connection.close()
        raise TooMuch(most)
    if response.length:
        raise http.client.IncompleteRead(content, response.length)
    if response.will_close:
        connection.close()
    return Answer(response.status, (response.headers["ETag"] or "").strip('"'), content)


def reason(error: BaseException) -> str:
    """Why there was no answer, in a few words."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def hint_for(error: BaseException) -> str:
    """What to do about it."""
    if isinstance(error, PermissionError):
        return "be root, or a member of the group that owns the socket (usually lxd)"
    return '"reconciler doctor --fix", as root, starts a private LXD where none is running; VMs need none'
