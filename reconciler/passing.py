"""Beside the flow: signals that are meant for a command in a guest, and only pass through us on their way to it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Passing:
    """The signals that came and were not taken yet. ``fileno`` becomes readable when there are any."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._reading

    def take(self) -> list[int]:
        """Their numbers, in the order in which they came."""
        try:
            return list(os.read(self._reading, 64))
        except BlockingIOError:
            return []

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The handler."""
        try:
            os.write(self._writing, bytes([number]))
        except BlockingIOError:
            return  # thousands of them are waiting already

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


@contextmanager
def passing_on() -> Iterator[Passing]:
    """While this lasts such signals do not end us but are collected. Elsewhere than in the main thread none come."""
    passing = Passing()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, passing.note) for number in PASSED_ON}
    try:
        yield passing
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        passing.close()
