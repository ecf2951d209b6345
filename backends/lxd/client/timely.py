"""HTTP answers of an LXD elsewhere, which may be anybody: the whole of one, headers too, has the time that it is given.

The standard library gives each piece of it that much, and one that drips has very many pieces.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import Any


class TimelyResponse(http.client.HTTPResponse):
    """For a connection's ``response_class``: reads until the connection's timeout, counted from now, is over; then it
    raises TimeoutError. Without a timeout it waits for ever."""

    def __init__(self, sock: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self._clocked = _Clocked(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._clocked)

    def renew(self) -> None:
        """As much time again, from now: for whoever takes what comes piece by piece."""
        self._clocked.renew()


class _Clocked(io.RawIOBase):
    """What comes from a socket, up to a moment. stream: its plain reader, which is closed with this one."""

    def __init__(self, stream: io.RawIOBase, connection: Any) -> None:
        self._stream, self._connection = stream, connection
        self._patience: float | None = connection.gettimeout()
        self.renew()

    def renew(self) -> None:
        self._until = None if self._patience is None else time.monotonic() + self._patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer took too long")
            self._connection.settimeout(left)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()
