"""A unix socket in front of LXD's that passes everything on, or is silent, garbles, or loses the reply."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GARBAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngarbage"


class Proxy:
    """mode: ``pass`` | ``silent`` | ``garble`` | ``lose`` (LXD gets the request, nobody gets the reply)."""

    def __init__(self, path: Path, behind: Path) -> None:
        self.path = path
        self.mode = "pass"
        self.connections = 0
        self.asked: list[str] = []
        """Method and path of each request, as they came."""
        self._behind = str(behind)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()
        self._bell, self._wake = socket.socketpair()
        self._threads: list[threading.Thread] = []

    def serve(self) -> None:
        while self._bell not in select.select([self._listening, self._bell], [], [])[0]:
            client, _ = self._listening.accept()
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(client,))
            thread.start()
            self._threads.append(thread)

    def ring(self) -> None:
        """Have every thread come to its end."""
        self._wake.close()

    def close(self) -> None:
        for thread in self._threads:
            thread.join()
        self._listening.close()
        self._bell.close()
        self.path.unlink()

    def _talk(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.connect(self._behind)
            while True:
                ready, _, _ = select.select([client, server, self._bell], [], [])
                if self._bell in ready or not all(self._move(one, client, server) for one in ready):
                    return

    def _move(self, one: socket.socket, client: socket.socket, server: socket.socket) -> bool:
        """Pass on what has arrived, or what the mode says instead; False when the talk is over."""
        try:
            data = one.recv(65536)
            if not data or (one is server and self.mode == "lose"):
                return False
            if one is client and (line := data.partition(b"\r\n")[0]).endswith(b" HTTP/1.1"):
                self.asked.append(line.decode().rpartition(" ")[0])
            if one is client and self.mode == "garble":
                client.sendall(GARBAGE)
            elif one is server or self.mode in ("pass", "lose"):
                (server if one is client else client).sendall(data)
        except OSError:
            return False
        return True


@contextmanager
def proxy(path: Path, behind: Path) -> Iterator[Proxy]:
    """A running proxy; everything of it is gone afterwards."""
    made = Proxy(path, behind)
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.ring()
        thread.join()
        made.close()
