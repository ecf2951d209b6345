"""WATCH: how threads talk to the one that decides: messages go in, and a flag that can be waited for says "end"."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from reconciler.polling import readable

Message = Callable[[], None]
"""What the deciding thread is to do."""


class Flag:
    """Satisfies ports.Stop."""

    def __init__(self) -> None:
        self._set = False
        self._handle = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Safe in a signal handler, too."""
        self._set = True
        os.eventfd_write(self._handle, 1)

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> bool:
        """Whether it was set within that time."""
        return bool(readable([self._handle], seconds))

    def fileno(self) -> int:
        return self._handle

    def close(self) -> None:
        os.close(self._handle)


class Inbox:
    """Messages for the deciding thread."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def put(self, message: Message) -> None:
        """From any thread."""
        self._messages.put(message)

    def nudge(self) -> None:
        """Only wake the deciding thread up. Safe in a signal handler."""
        self._messages.put(None)

    def ask(self, question: Callable[[], Any], timeout: float = 10.0) -> Any:
        """Have the deciding thread answer; raises what it raises, or TimeoutError."""
        answer: Future[Any] = Future()

        def reply() -> None:
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                answer.set_exception(error)

        self.put(reply)
        return answer.result(timeout)

    def drain(self, timeout: float) -> None:
        """Wait for a message, and carry out all that are there by then."""
        with suppress(queue.Empty):
            message = self._messages.get(timeout=max(0.0, timeout))
            while True:
                if message is not None:
                    message()
                message = self._messages.get_nowait()
