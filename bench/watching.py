"""A running ``reconciler watch`` for the benches: its events with the time at which they came, and what it uses."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import installed
from bench.world import World
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline

PATIENCE = 300.0


class Watch:
    """Its events come as JSON lines; ``until`` gives the monotonic time at which one came.

    folder: what is watched; None where that stands among the words; telling: it also says when it is told of something
    """

    def __init__(self, here: World, folder: Path | None, *words: str, telling: bool = False) -> None:
        self.folder = folder or here.folder
        paths = [] if folder is None else [str(folder)]
        whole = ["watch", *paths, "--log-format", "json", *words]
        command = [installed.python(), "-m", "bench.told", *whole] if telling else here.reconciler(*whole)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **here.environment},  # as it is for what is installed
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._events: list[tuple[float, dict[str, Any]]] = []
        self._read = 0
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def until(self, reason: str, resource: str = "", since: float = 0.0) -> float:
        """When the next such event came (since then), in seconds of ``time.perf_counter``."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while True:
                for at in range(self._read, len(self._events)):
                    moment, event = self._events[at]
                    if (event["reason"], event["resource"]) == (reason, resource) and moment >= since:
                        self._read = at + 1
                        return moment
                if not self._news.wait(deadline - time.monotonic()):
                    raise RuntimeError(f"no {reason} {resource}: {self._events[-10:]}")

    def steps(self) -> int:
        """How many steps were begun since the start."""
        return sum(1 for _, event in self._events if event["reason"] in ("Step", "Restarting", "CrashLoop"))

    def memory(self) -> float:
        """Resident, in MiB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)

    def cpu(self) -> float:
        """Seconds of processor that it has used."""
        return cpu(self.process.pid)

    def _follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            now, event = time.perf_counter(), json.loads(line)
            with self._news:
                self._events.append((event.get("moment", now), event))
                self._news.notify_all()


def cpu(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def watching(here: World, folder: Path | None, *words: str, telling: bool = False) -> Iterator[Watch]:
    """One, until the end of the block."""
    watch = Watch(here, folder, *words, telling=telling)
    try:
        yield watch
    finally:
        watch.process.terminate()
        watch.process.wait(60)
        if watch.process.stderr is not None:
            watch.process.stderr.close()


def until(fact: Callable[[], Any], pause: float = 0.002) -> float:
    """When it is so, in seconds of ``time.perf_counter``."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        if time.monotonic() > deadline:
            raise RuntimeError("it never came")
        time.sleep(pause)
    return time.perf_counter()


class Lifecycle:
    """LXD's own events, with the time at which they came: what is measured is what LXD says, not what we say."""

    def __init__(self, here: World) -> None:
        self._client = Client(Address(socket=here.socket))
        self._stream = self._client.websocket(("events",), Deadline.after(10), type="lifecycle")
        self._events: list[tuple[float, str, str]] = []
        self._read = 0
        self._news = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def skip(self) -> None:
        """What came until now does not count."""
        with self._news:
            self._read = len(self._events)

    def until(self, name: str, *actions: str) -> float:
        """When the next of these came for that instance, in seconds of ``time.perf_counter``."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while True:
                for at in range(self._read, len(self._events)):
                    moment, action, source = self._events[at]
                    if action in actions and source == name:
                        self._read = at + 1
                        return moment
                if not self._news.wait(deadline - time.monotonic()):
                    raise RuntimeError(f"LXD never said {actions} of {name}: {self._events[-10:]}")

    def _follow(self) -> None:
        while not self._stream.closed:
            for message in self._stream.receive():
                now = time.perf_counter()
                about = json.loads(message.data)["metadata"]
                with self._news:
                    self._events.append((now, about["action"], about["source"].rpartition("/")[2].partition("?")[0]))
                    self._news.notify_all()
