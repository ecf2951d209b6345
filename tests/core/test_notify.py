"""watch/notify.py: what a service manager is told; one that does not listen holds nobody up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.watch.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager listens, and has so much to read already that nothing more is taken in."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as us,
    ):
        one.bind(str(tmp_path / "notify"))
        one.settimeout(60)
        us.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                us.sendto(b"earlier", str(tmp_path / "notify"))
        yield one


def notifier(manager: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "3000000"})


def test_a_manager_that_does_not_listen_holds_nobody_up(manager: socket.socket) -> None:
    one = notifier(manager)

    def tell() -> None:
        one.alive()
        one.tell("READY=1", patience=0.1)

    going_on = threading.Thread(target=tell, daemon=True)
    going_on.start()
    going_on.join(60)
    assert not going_on.is_alive()


def test_one_that_listens_a_little_later_is_told(manager: socket.socket) -> None:
    last = threading.Thread(target=notifier(manager).tell, args=("STOPPING=1", 60.0))
    last.start()
    while manager.recv(100) != b"STOPPING=1":
        pass
    last.join()
