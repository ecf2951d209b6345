"""A door in front of an LXD: lets everything through, and writes down when requests come in."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_REQUESTS = (b"GET ", b"PUT ", b"POST ", b"PATCH ", b"DELETE ", b"HEAD ")


class Doorway:
    """Listens at ``path`` from its making until ``close``."""

    def __init__(self, path: Path, behind: Path) -> None:
        self.path = path
        self._behind = str(behind)
        self._news = threading.Condition()
        self._came: list[tuple[float, str]] = []
        self._read = 0
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        path.chmod(0o600)
        self._listening.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def skip(self) -> None:
        """What came until now does not count."""
        with self._news:
            self._read = len(self._came)

    def until(self, patience: float = 300.0) -> float:
        """When the next request came, in seconds of ``time.perf_counter``."""
        with self._news:
            if not self._news.wait_for(lambda: len(self._came) > self._read, patience):
                raise RuntimeError("no request came")
            self._read += 1
            return self._came[self._read - 1][0]

    def since_skipped(self) -> list[str]:
        """The first lines of the requests that came and were not waited for."""
        with self._news:
            return [line for _, line in self._came[self._read :]]

    def close(self) -> None:
        """Nobody comes in any more."""
        self._listening.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._let_through, args=(client,), daemon=True).start()

    def _let_through(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inner, contextlib.suppress(OSError):
            inner.connect(self._behind)
            other = {client: inner, inner: client}
            while True:
                for one in select.select([client, inner], [], [])[0]:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    if one is client and data.startswith(_REQUESTS):
                        self._note(time.perf_counter(), data)
                    other[one].sendall(data)

    def _note(self, now: float, data: bytes) -> None:
        with self._news:
            self._came.append((now, data.partition(b"\r\n")[0].decode(errors="replace")))
            self._news.notify_all()


@contextlib.contextmanager
def doorway(path: Path, behind: Path) -> Iterator[Doorway]:
    """One, until the end of the block."""
    found = Doorway(path, behind)
    try:
        yield found
    finally:
        found.close()
