"""WATCH: the door to its face: a socket that is there from the start. Who answers is loaded once somebody knocks.

The libraries of the face take a while and some memory; nobody who starts a watch has to wait for them, and many a watch
is never asked anything.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from reconciler.paths import private_dir
from reconciler.polling import readable
from reconciler.watch.inbox import Flag

MOST_CLIENTS = 64

Serve = Callable[[socket.socket, Flag], None]
"""Answers whoever comes to the socket, until the flag is set."""


class Door:
    """Listens at ``folder``/<pid>.sock from its making until ``close``."""

    def __init__(self, folder: Path, serve: Serve) -> None:
        self.path = private_dir(folder) / f"{os.getpid()}.sock"
        self.path.unlink(missing_ok=True)
        self._serve = serve
        self._stop = Flag()
        self._socket = _listening(self.path)
        self._thread = threading.Thread(target=self._answer, name="face", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody is answered any more."""
        self.path.unlink(missing_ok=True)
        self._stop.set()
        self._thread.join(5)
        self._socket.close()

    def _answer(self) -> None:
        readable([self._socket, self._stop], None)
        if not self._stop.is_set():
            self._serve(self._socket, self._stop)


def _listening(path: Path) -> socket.socket:
    """Only our own user may come in."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o177)
    try:
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")  # a path of any length
    finally:
        os.umask(before)
        os.close(folder)
    listening.listen(MOST_CLIENTS)
    return listening
