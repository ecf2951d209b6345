"""WATCH: what happens, as people are told it: lines of the log, ``events -f``, and the newest of them for a while."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """number: counts up, from the start of the watch; at: seconds since the epoch;
    warning: something is not as it should be; reason: one word for programs;
    resource: ``Kind/name``, or empty when it is about the whole."""

    number: int
    at: float
    warning: bool
    reason: str
    resource: str
    message: str
    environment: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {
            "number": self.number,
            "at": f"{_second(int(self.at))}.{int(self.at % 1 * 1000):03d}Z",
            "type": "Warning" if self.warning else "Normal",
            "reason": self.reason,
            "resource": self.resource,
            "message": self.message,
            "environment": self.environment,
        }


@lru_cache(maxsize=16)
def _second(at: int) -> str:
    """A thousand events come in one."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


class Sink(Protocol):
    """Where events go. Only ``flush`` has to bring them there: a thousand of them come at once at times."""

    def __call__(self, event: Event) -> None: ...

    def flush(self) -> None:
        """Whatever was taken in is there now."""


class Journal:
    """Written by one thread; any number of others wait for what is new."""

    def __init__(self, sinks: tuple[Sink, ...] = ()) -> None:
        self.environment = ""
        """Which one it is about; empty until that is known."""
        self._sinks = sinks
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._next = 1
        self.newest = 0
        """Counts whatever may be news to somebody."""
        self._news = threading.Condition()

    def tell(self, reason: str, message: str, resource: object = "", warning: bool = False) -> None:
        """Something happened."""
        event = Event(self._next, time.time(), warning, reason, str(resource), message, self.environment)
        with self._news:
            self._next += 1
            self.newest += 1
            self._events.append(event)
            self._news.notify_all()
        for sink in self._sinks:
            sink(event)

    def flush(self) -> None:
        """Before whoever writes waits for something."""
        for sink in self._sinks:
            sink.flush()

    def moved(self) -> None:
        """A condition is another one: whoever waits looks again."""
        with self._news:
            self.newest += 1
            self._news.notify_all()

    def since(self, number: int) -> list[Event]:
        """The events behind that number which are still kept."""
        with self._news:
            return [event for event in self._events if event.number > number]

    def wait(self, timeout: float, seen: int) -> None:
        """Until there is news since ``seen`` (what ``newest`` was), or the time is over."""
        with self._news:
            if self.newest == seen:
                self._news.wait(timeout)
