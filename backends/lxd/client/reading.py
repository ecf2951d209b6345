"""Reads over a unix socket, with the standard library only and connections kept alive.

Importing pylxd costs more than a whole plan that finds nothing to do, and its unix adapter opens a new
connection for every URL; so what only reads takes this way, and what writes the other (``writing``).
"""

from __future__ import annotations

import http.client
import socket
from collections import deque
from pathlib import Path

from reconciler.backends.lxd.client.answers import Answer
from reconciler.problems import Problem, Unreachable

KEPT = 8


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


class UnixReader:
    """GETs from one socket; safe for several threads, each of which takes an idle connection or makes one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[UnixConnection] = deque()

    def get(self, target: str, timeout: float) -> Answer:
        """The answer to ``GET target``. Raises Unreachable when there is none within that many seconds."""
        while True:
            connection = self._take(timeout)
            try:
                answer = self._ask(connection, target)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if connection.used and not isinstance(error, TimeoutError):
                    continue  # kept alive too long: LXD was restarted meanwhile; a fresh one tells the truth
                raise self._silence(error) from error
            connection.used = True
            if len(self._idle) < KEPT:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self, timeout: float) -> UnixConnection:
        try:
            connection = self._idle.pop()
        except IndexError:
            return UnixConnection(self._path, timeout)
        connection.timeout = timeout
        connection.sock.settimeout(timeout)
        return connection

    def _ask(self, connection: UnixConnection, target: str) -> Answer:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read()
        return Answer(response.status, (response.headers["ETag"] or "").strip('"'), body)

    def _silence(self, error: Exception) -> Unreachable:
        return Unreachable(Problem(f"no answer from LXD at {self._path}: {reason(error)}", hint=hint_for(error)))


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
