"""APPLY, in the forwarder: waits for all its sockets at once, and for moments. Knows nothing of what they are for."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
BROKEN = select.EPOLLERR

Ready = Callable[[int], None]
"""What to do when a socket is ready; is given the epoll events."""


class Loop:
    """One thread, one epoll. Whoever watches a descriptor forgets it before closing it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Ready]] = {}
        self._moments: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.running = True

    def watch(self, handle: int, events: int, ready: Ready) -> None:
        """Call ``ready`` whenever one of the events is there; instead of what was watched before. 0: nothing."""
        before = self._watched.get(handle)
        if events == 0:
            # Nothing at all: epoll would go on to tell of a connection's end, and it cannot be acted on now.
            self.forget(handle)
        else:
            self._watched[handle] = (events, ready)
            if before is None:
                self._epoll.register(handle, events)
            elif before[0] != events:
                self._epoll.modify(handle, events)

    def forget(self, handle: int) -> None:
        """Whether or not it was watched."""
        if self._watched.pop(handle, None) is not None:
            self._epoll.unregister(handle)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do it then. It cannot be taken back: the action has to see for itself whether it is still wanted."""
        self._count += 1
        heapq.heappush(self._moments, (time.monotonic() + seconds, self._count, action))

    def run(self) -> None:
        """Until ``running`` is False."""
        while self.running:
            wait = max(0.0, self._moments[0][0] - time.monotonic()) if self._moments else -1
            for handle, events in self._epoll.poll(wait):
                if handle in self._watched:  # an earlier one of this round may have closed it
                    self._watched[handle][1](events)
            while self._moments and self._moments[0][0] <= time.monotonic():
                heapq.heappop(self._moments)[2]()
