"""WATCH, the other side: what the command line asks a daemon that runs. Imports nothing of the daemon."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.problems import Problem, Unreachable, UsageError

_ANSWER = 15.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


class Client:
    """One daemon. Raises Unreachable when it does not answer, UsageError with its own words when it says no."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, target: str, timeout: float = _ANSWER) -> Any:
        """The JSON behind it. None when a wait came to its end without success."""
        return self._ask("GET", target, None, timeout)

    def post(self, target: str, body: Mapping[str, Any], timeout: float = _ANSWER) -> Any:
        """Have something done."""
        return self._ask("POST", target, json.dumps(body), timeout)

    def lines(self, target: str) -> Iterator[Any]:
        """JSON lines, as they come, until the daemon ends."""
        connection = _Connection(self.path, None)
        with suppress(http.client.HTTPException, OSError):
            connection.request("GET", target)
            for line in connection.getresponse():
                yield json.loads(line)

    def _ask(self, method: str, target: str, body: str | None, timeout: float) -> Any:
        connection = _Connection(self.path, timeout)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            code, text = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(Problem(f"the watching reconciler does not answer: {error}")) from error
        finally:
            connection.close()
        document = json.loads(text)
        if code == 408:
            return None
        if code != 200:
            raise UsageError([Problem(**words) for words in document["problems"]])
        return document


@dataclass(frozen=True, slots=True)
class Answered:
    """One daemon and its status; None when it is there and does not answer. pid: its process, as its socket says."""

    client: Client
    pid: str
    status: Mapping[str, Any] | None


def everybody(folder: Path, patience: float = _ANSWER) -> Iterator[Answered]:
    """Every daemon of this folder, asked how it is. patience: seconds for each."""
    for path in sorted(folder.glob("*.sock")):
        client = Client(path)
        try:
            yield Answered(client, path.stem, client.get("/v1/status", patience))
        except (Unreachable, UsageError) as error:
            if not Path(f"/proc/{path.stem}").exists():
                path.unlink(missing_ok=True)  # left by one that was killed
            elif not isinstance(error.__cause__, ConnectionRefusedError):  # only just begins, or a pid that came again
                yield Answered(client, path.stem, None)


def find(folder: Path, environment: str | None = None) -> Client | None:
    """The daemon that watches this environment (None: the only one there is); None when none does."""
    there = list(everybody(folder))
    names = {str(one.status["environment"]): one.client for one in there if one.status is not None}
    found = {name: client for name, client in names.items() if environment in (None, name)}
    if not found and (silent := [one.pid for one in there if one.status is None]):
        raise Unreachable(Problem(f"the watch does not answer: process {', '.join(silent)}"))
    if len(found) > 1:
        hint = f"say which: --environment {' | '.join(found)}"
        raise UsageError(Problem("several environments are watched", hint=hint))
    return next(iter(found.values()), None)
