"""OBSERVE, told: what a QEMU says by itself, on a monitor of its own: that there is something to look at.

One poll listens to all VMs. Nothing is asked on this monitor, so nobody ever waits for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reconciler.backends.qemu.sockets import connect

_BEGIN = b'{"execute": "qmp_capabilities"}\n'
_PIECE = 1 << 16
_LONG_LINE = 1 << 20
_TOLD = frozenset(
    {
        *("STOP", "RESUME", "SHUTDOWN", "RESET", "SUSPEND", "SUSPEND_DISK", "WAKEUP", "WATCHDOG"),
        *("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR", "MEMORY_DEVICE_SIZE_CHANGE"),
        *("BALLOON_CHANGE", "BLOCK_IO_ERROR", "GUEST_PANICKED", "GUEST_CRASHLOADED", "MEMORY_FAILURE"),
    }
)
"""After these the machine may be another than it was. QEMU tells much else, such as the guest setting its clock."""


class Listener:
    """A connection to the monitor for events. Raises Unreachable where there is none (or nobody behind it)."""

    def __init__(self, path: Path, subject: str) -> None:
        self.closed = False
        """Nothing comes any more: connect again."""
        self._socket = connect(path, subject)
        self._rest = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> bool:
        """Take in what has come; whether it is worth a look.

        So is that we begin to be told: whatever happened before that, nobody heard.
        """
        news = [self._is_news(line) for line in self._lines()]  # all of them: the greeting has to be answered
        return True in news

    def discard(self) -> None:
        """Take in what has come, however much it is, and read nothing of it."""
        while not self.closed and self._lines():
            pass

    def close(self) -> None:
        """Somebody else may listen."""
        self.closed = True
        self._socket.close()

    def _lines(self) -> list[bytes]:
        try:
            data = self._socket.recv(_PIECE)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.closed = not data or len(self._rest) > _LONG_LINE
        return lines

    def _is_news(self, line: bytes) -> bool:
        try:
            said: Any = json.loads(line)
        except ValueError:
            return False
        if "QMP" in said:
            self._begin()
        return "return" in said or said.get("event") in _TOLD

    def _begin(self) -> None:
        try:
            self._socket.sendall(_BEGIN)
        except OSError:
            self.closed = True
