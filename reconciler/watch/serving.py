"""WATCH: the daemon's face: HTTP over a unix socket that only its own user may use. ``curl --unix-socket`` speaks it.

    GET  /v1/environment       GET  /v1/status             GET /metrics
    GET  /v1/events?since=N&follow=1 (a JSON line each)
    GET  /v1/wait?resource=Kind/name&for=Ready&timeout=60
    GET  /v1/history (what no look has proved yet)
    POST /v1/look (as a hint, and the answer)
    POST /v1/reconcile         POST /v1/suspend         POST /v1/resume         POST /v1/rollback      (JSON bodies)

Requests are answered in threads of their own; what changes anything is done by the deciding thread.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from reconciler.model import ResourceId
from reconciler.polling import readable
from reconciler.problems import Problem, ReconcilerError, UsageError
from reconciler.watch.daemon import Daemon
from reconciler.watch.door import MOST_CLIENTS
from reconciler.watch.inbox import Flag
from reconciler.watch.told import holds, resource, status

_MOST_BODY = 65536
_CREDENTIALS = struct.Struct("3i")  # SO_PEERCRED: pid, uid, gid
_SOON = 0.05
"""Seconds between two looks whether something was looked at."""
_LONGEST_WAIT = 86400.0
_TICK = 1.0
"""Seconds between two looks whether somebody who waits is still there, and whether we are to end."""

Answer = tuple[int, Any]


def serve(daemon: Daemon, listening: socket.socket, stop: Flag) -> None:
    """Answer whoever comes to the door, until the flag is set."""
    server = _Unix(listening, daemon)
    while not stop.is_set():
        if listening.fileno() in readable([listening, stop], None):
            server.handle_request()


class _Unix(socketserver.ThreadingMixIn, socketserver.BaseServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket, daemon: Daemon) -> None:
        super().__init__("", _Handler)
        self.daemon = daemon
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)
        self.socket = listening

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()

    def verify_request(self, request: Any, _address: Any) -> bool:
        """The folder is ours alone; the kernel says who it is all the same."""
        _, uid, _ = _CREDENTIALS.unpack(request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return uid in (0, os.geteuid()) and self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, address: Any) -> None:
        try:
            super().process_request_thread(request, address)
        finally:
            self._places.release()

    def shutdown_request(self, request: Any) -> None:
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        request.close()

    def handle_error(self, _request: Any, _address: Any) -> None:
        """Somebody hung up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Unix
    timeout = 30.0
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        """What is true; changes nothing."""
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/metrics":
            self._send(200, self.server.daemon.meter.text(), "text/plain; version=0.0.4")
        elif parts.path == "/v1/events":
            self._events(int(query.get("since", "0") or 0), query.get("follow") == "1")
        elif parts.path == "/v1/wait":
            self._answer(lambda: _wait(self.server.daemon, query, self._gone), True)
        else:
            self._answer(lambda: _GET[parts.path](self.server.daemon, query), parts.path in _GET)

    def do_POST(self) -> None:
        """What somebody wants done."""
        size = int(self.headers.get("Content-Length") or 0)
        path = urlsplit(self.path).path
        if size > _MOST_BODY:
            self._answer(lambda: (413, _told([Problem("the request is too big")])), True)
            return
        text = self.rfile.read(size) or b"{}"
        self._answer(lambda: _POST[path](self.server.daemon, json.loads(text)), path in _POST)

    def _answer(self, work: Callable[[], Answer], known: bool) -> None:
        if not known:
            self._json(404, _told([Problem(f"there is no {self.command} {self.path}")]))
            return
        try:
            code, document = work()
        except ReconcilerError as error:
            code, document = 400, _told(error.problems)
        except TimeoutError:
            code, document = 503, _told([Problem("it is too busy to answer")])
        except OSError as error:
            code, document = 507, _told([Problem(f"it cannot be kept: {error.strerror}")])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            code, document = 400, _told([Problem(f"not understood: {error}")])
        self._json(code, document)

    def _json(self, code: int, document: Any) -> None:
        self._send(code, json.dumps(document, ensure_ascii=False, default=str).encode() + b"\n", "application/json")

    def _send(self, code: int, body: bytes, form: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", form)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self, since: int, follow: bool) -> None:
        daemon = self.server.daemon
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        while True:
            seen = daemon.journal.newest
            for event in daemon.journal.since(since):
                since = event.number
                self.wfile.write(json.dumps(event.document(), ensure_ascii=False).encode() + b"\n")
            self.wfile.flush()
            if not follow or daemon.work.stop.is_set() or self._gone():
                return
            daemon.journal.wait(_TICK, seen)

    def _gone(self) -> bool:
        """Whether whoever asked has hung up."""
        there = readable([self.connection], 0.0)  # recv itself would wait: the socket has a timeout
        return bool(there) and not self.connection.recv(1, socket.MSG_PEEK)

    def log_message(self, *_words: Any) -> None:
        """The journal is for what happens to resources."""

    def address_string(self) -> str:
        return "local"


def _told(problems: Iterable[Problem]) -> dict[str, Any]:
    """Problems as JSON; see ``client``."""
    return {"problems": [{"summary": one.summary, "subject": one.subject, "hint": one.hint} for one in problems]}


def _environment(daemon: Daemon, _query: Mapping[str, str]) -> Answer:
    """Whom one speaks to, without asking the deciding thread: it may be busy."""
    wanted = daemon.wanted
    return 200, {"environment": wanted.environment if wanted else None, "pid": os.getpid()}


def _status(daemon: Daemon, _query: Mapping[str, str]) -> Answer:
    return 200, daemon.inbox.ask(lambda: status(daemon))


def _wait(daemon: Daemon, query: Mapping[str, str], gone: Callable[[], bool]) -> Answer:
    """Until the resource has the condition (or the time is over: 408). gone: whether nobody waits for it any more"""
    id, type = ResourceId.parse(query["resource"]), query.get("for", "Ready")
    deadline = time.monotonic() + min(_LONGEST_WAIT, float(query.get("timeout", "60")))
    while True:
        seen = daemon.journal.newest
        told = daemon.inbox.ask(lambda: _one(daemon, id))
        left = deadline - time.monotonic()
        if holds(told, type):
            return 200, told
        if left <= 0 or daemon.work.stop.is_set() or gone():
            return 408, told
        daemon.journal.wait(min(left, _TICK), seen)


def _one(daemon: Daemon, id: ResourceId) -> dict[str, Any]:
    if not _is_wanted(daemon, id):
        raise UsageError(Problem("it is not declared in what is watched", subject=str(id)))
    return resource(daemon, id)


def _reconcile(daemon: Daemon, body: Mapping[str, Any]) -> Answer:
    """Look now: at one resource, or at everything, after what is wanted was read again."""

    def work() -> None:
        if target := body.get("resource"):
            id = ResourceId.parse(target)
            _one(daemon, id)
            daemon.work.restarts.forget(id)
            daemon.resync(time.monotonic(), [id])
        else:
            daemon.read_again()

    daemon.inbox.ask(work)
    return 200, {"accepted": True}


def _look(daemon: Daemon, body: Mapping[str, Any]) -> Answer:
    """Look at these again where nothing speaks against it, and say how they are: by then, or after that many seconds.

    What fails keeps its pause, and what is worked on is looked at afterwards anyway.
    """
    ids, asked = [ResourceId.parse(one) for one in body["resources"]], time.time()
    deadline = time.monotonic() + min(10.0, float(body.get("timeout", 1.0)))
    while daemon.inbox.ask(lambda: _unseen(daemon, ids, asked)) and time.monotonic() < deadline:
        daemon.journal.wait(_SOON, daemon.journal.newest)
    return 200, {"resources": daemon.inbox.ask(lambda: _looked(daemon, ids, asked))}


def _looked(daemon: Daemon, ids: Iterable[ResourceId], asked: float) -> list[dict[str, Any]]:
    """How those are that were looked at since; nothing is said of the others."""
    fresh = [id for id in ids if (seen := daemon.work.board.looked(id)) is not None and seen.at >= asked]
    return [resource(daemon, id) for id in fresh if _is_wanted(daemon, id)]


def _unseen(daemon: Daemon, ids: Iterable[ResourceId], asked: float) -> bool:
    """Whether some of them are still to be looked at; they are put in line."""
    work = daemon.work
    left = [id for id in ids if _is_wanted(daemon, id) and not work.queue.failures(id) and id not in work.queue.working]
    left = [id for id in left if (seen := work.board.looked(id)) is None or seen.at < asked]
    work.queue.add(left, time.monotonic())
    return bool(left) or any(id in work.queue.working for id in ids)


def _is_wanted(daemon: Daemon, id: ResourceId) -> bool:
    return daemon.wanted is not None and id in daemon.wanted.desired


def _suspend(daemon: Daemon, body: Mapping[str, Any]) -> Answer:
    why = str(body.get("why") or "suspended")[:500]
    daemon.inbox.ask(lambda: daemon.suspend(why))
    return 200, {"suspended": True}


def _resume(daemon: Daemon, _body: Mapping[str, Any]) -> Answer:
    daemon.inbox.ask(daemon.resume)
    return 200, {"suspended": False}


def _rollback(daemon: Daemon, body: Mapping[str, Any]) -> Answer:
    revision = str(body["revision"])
    daemon.source.rollback(revision)  # here: it may have to wait for a server that is being asked
    daemon.inbox.ask(lambda: daemon.rolled_back(revision))
    return 200, {"revision": revision}


def _history(daemon: Daemon, _query: Mapping[str, str]) -> Answer:
    return 200, daemon.inbox.ask(lambda: {"runs": daemon.runs.unproved(), "trouble": daemon.runs.trouble})


_GET: Mapping[str, Callable[[Daemon, Mapping[str, str]], Answer]] = {
    "/v1/environment": _environment,
    "/v1/status": _status,
    "/v1/history": _history,
}
_POST: Mapping[str, Callable[[Daemon, Mapping[str, Any]], Answer]] = {
    "/v1/look": _look,
    "/v1/reconcile": _reconcile,
    "/v1/suspend": _suspend,
    "/v1/resume": _resume,
    "/v1/rollback": _rollback,
}
