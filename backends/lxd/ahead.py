"""Before OBSERVE, where much is declared: LXD is asked for all of its instances while manifests are still being read.

To tell of a thousand takes LXD a fifth of a second, and us as long to be ready for them. We listen before we ask, so
nothing that happens meanwhile goes unheard; and the answer is only used, once, where LXD has told of nothing since.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.handshake import connect, shake_hands
from reconciler.polling import readable
from reconciler.problems import BackendError

if TYPE_CHECKING:
    from reconciler.backends.lxd.client.answers import Answer
    from reconciler.backends.lxd.client.websockets import WebSocket

TARGET = "/1.0/instances?recursion=1"
EVENTS = "/1.0/events?type=lifecycle%2Coperation"
_PATIENCE = 0.5
"""Seconds that LXD has to begin: nobody waits for it longer than for nothing."""
_FRESH = 5.0
"""Seconds after which nobody is told what it was like then."""


class Ahead:
    """One question that is on its way, and the ear that was opened before it. Raises BackendError, OSError."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._given: WebSocket | None = None
        self._asked: socket.socket | None = None
        self._ear: socket.socket | None = connect(path, _PATIENCE)
        try:
            self._rest = shake_hands(self._ear, EVENTS)
            self._asked = connect(path, _PATIENCE)
            self._asked.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n".encode())
        except (BackendError, OSError):
            self.close()
            raise
        self._until = time.monotonic() + _FRESH
        self._end = threading.Timer(_FRESH, self.close)  # where nobody wants to know after all
        self._end.daemon = True
        self._end.start()

    def ear(self) -> WebSocket | None:
        """The ear, for whoever takes it first."""
        from reconciler.backends.lxd.client.websockets import WebSocket

        with self._lock:
            ear, self._ear = self._ear, None
            self._given = WebSocket(ear, self._rest) if ear is not None else None
            return self._given

    def answer(self, target: str, timeout: float) -> Answer | None:
        """What LXD has said, if this is what it was asked and still so; None: ask it."""
        with self._lock:
            if target != TARGET or self._asked is None:
                return None
            asked, self._asked = self._asked, None
        with asked, contextlib.suppress(OSError, ValueError):
            answer = _read(asked, timeout)
            return answer if answer is not None and self._is_true() else None
        return None

    def close(self) -> None:
        """Let go of what nobody has taken."""
        with self._lock:
            ear, self._ear, asked, self._asked = self._ear, None, self._asked, None
        if ear is not None:
            ear.close()
        if asked is not None:
            asked.close()

    def _is_true(self) -> bool:
        """Whether somebody listens, and nothing has been told since we asked."""
        ear = self._given
        if ear is None or time.monotonic() > self._until:
            return False
        return not (ear.heard or ear.closed or readable([ear], 0.0))


def _read(asked: socket.socket, timeout: float) -> Answer | None:
    from http.client import HTTPException, HTTPResponse

    from reconciler.backends.lxd.client.answers import LARGEST, Answer

    asked.settimeout(timeout)
    try:
        response = HTTPResponse(asked, method="GET")
        response.begin()
        body = response.read(LARGEST + 1)
    except HTTPException:
        return None
    return Answer(response.status, "", body) if response.status == 200 and len(body) <= LARGEST else None


_BEGUN: dict[Path, Ahead] = {}


def begin(path: Path) -> None:
    """Ask the LXD behind that socket; whatever goes wrong is told to whoever asks again."""
    with contextlib.suppress(BackendError, OSError):
        _BEGUN[path] = Ahead(path)


def begun(address: Address) -> Ahead | None:
    """What that very LXD has been asked, for whoever comes first."""
    if address.socket is None or address.project is not None or address.target is not None:
        return None
    return _BEGUN.pop(address.socket, None)
