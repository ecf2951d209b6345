"""WATCH: what a service manager is told over NOTIFY_SOCKET: that we are up, that we are alive, that we end."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Does nothing when nobody wants to know."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "")
        self._every = int(usec) / 3e6 if ours and usec.isdigit() else 0.0
        self._next = 0.0

    def tell(self, words: str, patience: float = 2.0) -> None:
        """Such as ``READY=1``. patience: seconds until there is room for it; a manager that does not listen has none,
        and we go on."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
            one.settimeout(patience)
            one.sendto(words.encode(), self._address)

    def alive(self) -> None:
        """The deciding thread goes round: said as often as the service manager wants to hear it."""
        now = time.monotonic()
        if self._every and now >= self._next:
            self._next = now + self._every
            self.tell("WATCHDOG=1", patience=0.0)

    @property
    def most(self) -> float:
        """Seconds that a round may take at most."""
        return min(5.0, self._every) if self._every else 5.0
