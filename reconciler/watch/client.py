"""WATCH, the other side: what the command line asks a daemon that runs. Imports nothing of the daemon."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
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

    def post(self, target: str, body: Mapping[str, Any]) -> Any:
        """Have something done."""
        return self._ask("POST", target, json.dumps(body), _ANSWER)

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


def find(folder: Path, environment: str | None = None) -> Client | None:
    """The daemon that watches this environment (None: the only one there is); None when none does."""
    found: dict[str, Client] = {}
    for path in sorted(folder.glob("*.sock")):
        client = Client(path)
        try:
            name = client.get("/v1/status")["environment"]
        except Unreachable:
            if not Path(f"/proc/{path.stem}").exists():
                path.unlink(missing_ok=True)  # left by one that was killed
            continue
        if environment is None or name == environment:
            found[str(name)] = client
    if len(found) > 1:
        hint = f"say which: --environment {' | '.join(found)}"
        raise UsageError(Problem("several environments are watched", hint=hint))
    return next(iter(found.values()), None)
