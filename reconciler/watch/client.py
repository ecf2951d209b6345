"""WATCH, the other side: what the command line asks a daemon that runs. Imports nothing of the daemon."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from reconciler.problems import Problem, Unreachable, UsageError

_ANSWER = 15.0


class Client:
    """One daemon. Raises Unreachable when it does not answer, UsageError with its own words when it says no."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, target: str, timeout: float = _ANSWER) -> Any:
        """The JSON behind it. None when a wait came to its end without success."""
        return self._ask("GET", target, b"", timeout)

    def post(self, target: str, body: Mapping[str, Any], timeout: float = _ANSWER) -> Any:
        """Have something done."""
        return self._ask("POST", target, json.dumps(body).encode(), timeout)

    def lines(self, target: str) -> Iterator[Any]:
        """JSON lines, as they come, until the daemon ends."""
        with suppress(OSError, ValueError), self._asked("GET", target, b"", None) as (_, answer):
            for line in answer:
                yield json.loads(line)

    def _ask(self, method: str, target: str, body: bytes, timeout: float) -> Any:
        try:
            with self._asked(method, target, body, timeout) as (code, answer):
                document = json.loads(answer.read())
        except (OSError, ValueError) as error:
            raise Unreachable(Problem(f"the watching reconciler does not answer: {error}")) from error
        if code == 408:
            return None
        if code != 200:
            raise UsageError([Problem(**words) for words in document["problems"]])
        return document

    @contextmanager
    def _asked(self, method: str, target: str, body: bytes, timeout: float | None) -> Iterator[tuple[int, BinaryIO]]:
        """The answer's code, and its body to read. Raises OSError, and ValueError for what is no answer.

        By hand: the library for it takes longer to load than the whole question.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.settimeout(timeout)
            folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                one.connect(f"/proc/self/fd/{folder}/{self.path.name}")  # a path of any length
            finally:
                os.close(folder)
            one.sendall(f"{method} {target} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            with one.makefile("rb") as answer:
                words = answer.readline().split()
                if len(words) < 2 or not words[1].isdigit():
                    raise ValueError("it hung up")
                while answer.readline().strip():
                    pass
                yield int(words[1]), answer


@dataclass(frozen=True, slots=True)
class Answered:
    """One daemon and what it said; None when it is there and does not answer. pid: its process, as its socket says."""

    client: Client
    pid: str
    status: Mapping[str, Any] | None


def everybody(folder: Path, patience: float = _ANSWER, target: str = "/v1/status") -> Iterator[Answered]:
    """Every daemon of this folder, asked how it is. patience: seconds for each."""
    for path in sorted(folder.glob("*.sock")):
        client = Client(path)
        try:
            yield Answered(client, path.stem, client.get(target, patience))
        except (Unreachable, UsageError) as error:
            if not Path(f"/proc/{path.stem}").exists():
                path.unlink(missing_ok=True)  # left by one that was killed
            elif not isinstance(error.__cause__, ConnectionRefusedError):  # only just begins, or a pid that came again
                yield Answered(client, path.stem, None)


def find(folder: Path, environment: str | None = None) -> Client | None:
    """The daemon that watches this environment (None: the only one there is); None when none does."""
    there = list(everybody(folder, target="/v1/environment"))
    names = {str(one.status["environment"]): one.client for one in there if one.status is not None}
    found = {name: client for name, client in names.items() if environment in (None, name)}
    if not found and (silent := [one.pid for one in there if one.status is None]):
        raise Unreachable(Problem(f"the watch does not answer: process {', '.join(silent)}"))
    if len(found) > 1:
        hint = f"say which: --environment {' | '.join(found)}"
        raise UsageError(Problem("several environments are watched", hint=hint))
    return next(iter(found.values()), None)
