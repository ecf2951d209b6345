"""The dumb half of the backend: one typed client of one LXD, with deadlines, ETags and operations waited for.

Nothing here knows what a Container is; nothing elsewhere knows HTTP. A unix socket is talked to the short way
(``local``); pylxd (``remote``) is imported only when the host is https.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client.answers import (
    LARGEST,
    Answer,
    Conflicting,
    Missing,
    Raced,
    Reply,
    TooMuch,
    each,
    is_missing_project,
    understand,
    understood,
)
from reconciler.backends.lxd.client.local import LocalTalk
from reconciler.backends.lxd.deadline import Deadline
from reconciler.problems import Interrupted, Problem, Refused

if TYPE_CHECKING:
    from reconciler.backends.lxd.ahead import Ahead
    from reconciler.backends.lxd.client.remote import RemoteTalk
    from reconciler.backends.lxd.client.websockets import WebSocket
    from reconciler.backends.lxd.owners import Owners

__all__ = [
    "ONE_REQUEST",
    "Client",
    "Conflicting",
    "Missing",
    "Raced",
    "Reply",
    "TooMuch",
    "is_missing_project",
    "understood",
]

ONE_REQUEST = 30.0
"""Seconds that a request may take which does no work in the background."""

# What is the same in every project: asking for them "in" a project that does not exist is an error.
_GLOBAL = frozenset({"projects", "operations"})

# How LXD says that an instance is in the middle of something (such as clearing up after a failed start), or just was.
_BUSY = ("nstance is busy running a", "A matching non-reusable operation has now succeeded")
_PAUSE = 0.2
# How it says that something else came first: an image was deleted while a container was made from it, or an earlier
# try of ours is still being carried out. Looking again tells which; trying again is right in both cases.
_OVERTAKEN = (
    re.compile(r"/images/[0-9a-f]{64}: no such file or directory"),
    re.compile(r'This "\w+" entry already exists'),
)

Path = tuple[str, ...]


class Client:
    """One LXD at one address. Safe for several threads. ``requests`` counts what was asked, for tests and benches."""

    def __init__(self, address: Address, ahead: Ahead | None = None) -> None:
        """ahead: what it has been asked already."""
        self.address = address
        self._ahead = ahead
        self.requests = 0
        self.server: tuple[Mapping[str, Any], object] | None = None
        """What it has said of itself, and which process that was; see ``lxd.server``."""
        self.owners: Owners | None = None
        """Where it can map the owners of shared folders; None until somebody asked."""
        self._lock = threading.Lock()
        self._local = LocalTalk(address.socket) if address.socket else None
        self._remote: RemoteTalk | None = None

    def get(self, *path: str, within: Deadline | None = None, **query: str) -> Reply:
        """The ``metadata`` of ``GET /1.0/<path>``. Raises Missing (404), Refused or Unreachable."""
        answer = self._read(path, query, within)
        envelope = understand(answer, _words("GET", path), writing=False)
        return Reply(envelope.get("metadata"), answer.etag)

    def each(self, *path: str, within: Deadline | None = None, **query: str) -> Iterator[Any]:
        """The members of a list that ``get`` would give, one after the other. Raises what ``get`` does."""
        yield from each(self._read(path, query, within), _words("GET", path))

    def find(self, *path: str, within: Deadline | None = None, **query: str) -> Reply | None:
        """Like ``get``; None when it is not there. Raises Missing when even our project is not there."""
        try:
            return self.get(*path, within=within, **query)
        except Missing as error:
            if self._scope(path) and is_missing_project(error):
                raise
            return None

    def raw(self, *path: str, within: Deadline | None = None, most: int = LARGEST, **query: str) -> bytes:
        """The body of something that is not JSON: a log, a file, of ``most`` bytes. Raises Missing (404), TooMuch,
        Refused or Unreachable."""
        answer = self._read(path, query, within, most)
        if not answer.ok:
            understand(answer, _words("GET", path), writing=False)
        return answer.body

    def head(self, *path: str, within: Deadline | None = None, **query: str) -> Mapping[str, str]:
        """The headers of something, by their names in lower case. Raises Missing (404), Refused or Unreachable."""
        return self._streamed("HEAD", path, query, within).headers

    def stream(self, *path: str, sink: Callable[[bytes], None], within: Deadline | None = None, **query: str) -> None:
        """Like ``raw``, piece by piece: for what need not fit into memory. within: how long each piece may take."""
        self._streamed("GET", path, query, within, sink)

    def _streamed(
        self,
        method: str,
        path: Path,
        query: Mapping[str, str],
        within: Deadline | None,
        sink: Callable[[bytes], None] | None = None,
    ) -> Answer:
        from reconciler.backends.lxd.client.streaming import ask

        self.requests += 1
        answer = ask(
            self.address, method, _target(path, self._scope(path) | dict(query)), _seconds(within, query), sink
        )
        if not answer.ok:
            understand(answer, _words(method, path), writing=False)
        return answer

    def put(self, path: Path, body: Any, within: Deadline, /, etag: str = "", **query: str) -> Any:
        """Replace; with an etag only if nobody else did since (else Interrupted). Waits for the operation."""
        return self._write("PUT", path, within, query, body, etag)

    def patch(self, path: Path, body: Any, within: Deadline, /, etag: str = "", **query: str) -> Any:
        """Change what is named in the body. Waits for the operation."""
        return self._write("PATCH", path, within, query, body, etag)

    def post(self, path: Path, body: Any, within: Deadline, /, **query: str) -> Any:
        """Create or act. Waits for the operation; its metadata comes back."""
        return self._write("POST", path, within, query, body)

    def delete(self, path: Path, within: Deadline, /, **query: str) -> bool:
        """Delete; False when it was not there."""
        try:
            self._write("DELETE", path, within, query)
        except Missing:
            return False
        return True

    def upload(self, path: Path, data: Any, headers: Mapping[str, str], within: Deadline, /, **query: str) -> Any:
        """POST bytes (or an open file) with headers; waits for the operation."""
        return self._write("POST", path, within, query, data=data, headers=headers)

    def start(self, path: Path, body: Any, within: Deadline, /, **query: str) -> dict[str, Any]:
        """POST what begins an operation that somebody else waits for (exec): the operation's metadata."""
        return dict(self._send("POST", path, within, query, body)["metadata"])

    def wait(self, operation: str, within: Deadline) -> dict[str, Any]:
        """Wait for an operation by its id. Raises Refused when it failed, Interrupted when we cannot know."""
        try:
            done = self.get("operations", operation, "wait", within=within, timeout=str(max(1, int(within.left))))
        except Missing as error:
            raise Interrupted(
                Problem("LXD forgot the operation before it said how it ended", hint="plan again")
            ) from error
        return self._judge(dict(done.metadata), within)

    def close(self) -> None:
        if self._ahead:
            self._ahead.close()
        if self._local:
            self._local.close()
        if self._remote:
            self._remote.close()

    def events(self, within: Deadline) -> WebSocket:
        """An open websocket that tells what happens; Raises Refused or Unreachable."""
        ear = self._ahead.ear() if self._ahead is not None else None
        return ear or self.websocket(("events",), within, type="lifecycle,operation")

    def websocket(self, path: Path, within: Deadline, /, **query: str) -> Any:
        """An open websocket (see ``websockets``)."""
        from reconciler.backends.lxd.client.websockets import open_websocket

        return open_websocket(self.address, _target(path, self._scope(path) | query), within)

    def _read(self, path: Path, query: Mapping[str, str], within: Deadline | None, most: int = LARGEST) -> Answer:
        timeout = _seconds(within, query)
        self.requests += 1
        asked = self._scope(path) | dict(query)
        if self._local:
            target = _target(path, asked)
            known = self._ahead.answer(target, timeout) if self._ahead is not None else None
            return known or self._local.send("GET", target, timeout, most=most)
        answer = self._pylxd().send("GET", path, query=asked, timeout=timeout)
        if len(answer.body) > most:
            raise TooMuch(most)
        return answer

    def _write(
        self,
        method: str,
        path: Path,
        within: Deadline,
        query: Mapping[str, str],
        body: Any = None,
        etag: str = "",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        marked = {**(headers or {}), **({"If-Match": etag} if etag else {})}
        again = _rewinding(data)
        while True:
            try:
                envelope = self._send(method, path, within, query, body, data, marked)
                if envelope["type"] != "async":
                    return envelope.get("metadata")
                return self.wait(str(envelope["metadata"]["id"]), within)
            except Refused as error:
                if within.passed or not any(words in error.problem.summary for words in _BUSY) or not again():
                    raise
                time.sleep(min(_PAUSE, within.left))  # LXD does one thing to an instance at a time; ours comes next

    def _send(
        self,
        method: str,
        path: Path,
        within: Deadline,
        query: Mapping[str, str],
        body: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        self.requests += 1
        asked, timeout = self._scope(path) | dict(query), max(1.0, within.left)
        if self._local:
            content = data if body is None else json.dumps(body).encode()
            kind = {} if body is None else {"Content-Type": "application/json"}
            answer = self._local.send(method, _target(path, asked), timeout, content, kind | dict(headers or {}))
        else:
            call = {"query": asked, "timeout": timeout, "json": body, "data": data, "headers": headers}
            answer = self._pylxd().send(method, path, **call)
        return understand(answer, _words(method, path), writing=True)

    def _judge(self, operation: dict[str, Any], within: Deadline) -> dict[str, Any]:
        code = int(operation.get("status_code", 0))
        if code == 200:
            return operation
        if code == 400:
            words = str(operation.get("err") or "the operation failed")
            if any(pattern.search(words) for pattern in _OVERTAKEN):
                raise Interrupted(Problem(words, hint="apply again"))
            raise Refused(Problem(words))
        if code == 401:
            raise Interrupted(Problem(f"the operation was cancelled: {operation.get('err') or 'no reason given'}"))
        self._cancel(str(operation.get("id", "")), within)
        raise Interrupted(Problem("LXD did not finish in time", hint="plan again, or give it more --timeout"))

    def _cancel(self, operation: str, within: Deadline) -> None:
        """Best effort: most operations cannot be cancelled, and then go on without us."""
        try:
            self._send("DELETE", ("operations", operation), Deadline.after(5), {})
        except (Refused, Interrupted):
            return

    def _scope(self, path: Path) -> dict[str, str]:
        if self.address.project and path and path[0] not in _GLOBAL:
            return {"project": self.address.project}
        return {}

    def _pylxd(self) -> RemoteTalk:
        with self._lock:
            if self._remote is None:
                from reconciler.backends.lxd.client.remote import RemoteTalk

                self._remote = RemoteTalk(self.address)
            return self._remote


def _rewinding(data: Any) -> Callable[[], bool]:
    """What makes it ready to be sent once more, and says whether it is: of a file that was read, nothing is left."""
    if data is None or isinstance(data, bytes):
        return lambda: True
    if not (hasattr(data, "seekable") and data.seekable()):
        return lambda: False
    begin = data.tell()
    return lambda: data.seek(begin) == begin


def _seconds(within: Deadline | None, query: Mapping[str, str]) -> float:
    if within is None:
        return ONE_REQUEST
    slack = 5.0 if "timeout" in query else 0.0  # LXD itself ends such a wait; leave it the time to say so
    return max(1.0, within.left) + slack


def _target(path: Path, query: Mapping[str, str]) -> str:
    target = "/1.0" + "".join(f"/{quote(part, safe='')}" for part in path)
    return f"{target}?{urlencode(query)}" if query else target


def _words(method: str, path: Path) -> str:
    return f"{method} /1.0/{'/'.join(path)}"
