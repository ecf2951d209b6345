"""RECORD: who may apply (a lock that dies with its holder) and what was done (history in SQLite).

The history may be lost at any moment without losing control of anything: ownership stands on the objects themselves.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reconciler.model import Run
from reconciler.paths import private_dir
from reconciler.problems import Locked, Problem

_POLL = 0.2  # seconds between two looks at a lock that somebody holds
_KEPT_RUNS = 1000
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
T = TypeVar("T")
_KEPT_EVENTS = 10_000
_SWEEP = 500  # events between two looks whether there are too many


@contextlib.contextmanager
def locked(
    state: Path, environment: str, patience: float, on_wait: Callable[[str], None] = lambda _holder: None
) -> Iterator[None]:
    """Hold the environment's lock; wait up to ``patience`` seconds for whoever has it, then raise Locked.

    The kernel lets go of the lock when its holder dies, so nobody ever has to remove it by hand.
    """
    handle = _open_lock(state, environment, "lock")
    try:
        with _in_line(state, environment) if patience > 0 else contextlib.nullcontext():
            _acquire(handle, environment, patience, on_wait)
        about = json.dumps({"pid": os.getpid(), "since": time.time(), "command": _command()}).encode()
        os.pwrite(handle, about, 0)
        os.ftruncate(handle, len(about))  # never to nothing: ext4 would wait for the disk when it is closed
        yield
    finally:
        os.close(handle)


def is_awaited(state: Path, environment: str) -> bool:
    """Whether somebody waits for the environment's lock right now: who holds it for long lets them go first."""
    handle = _open_lock(state, environment, "line")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def _in_line(state: Path, environment: str) -> Iterator[None]:
    """Be seen to wait. Whoever only looks whether somebody waits is in our way for microseconds."""
    handle = _open_lock(state, environment, "line")
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _open_lock(state: Path, environment: str, ending: str) -> int:
    path = private_dir(state / "locks") / f"{environment}.{ending}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _acquire(handle: int, environment: str, patience: float, on_wait: Callable[[str], None]) -> None:
    deadline = time.monotonic() + patience
    told = False
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(handle)
        if time.monotonic() >= deadline:
            raise Locked(
                Problem(
                    f"another apply holds the lock: {holder}",
                    subject=f"Environment/{environment}",
                    hint="wait for it, or give this one more patience with --lock-timeout",
                )
            )
        if not told:
            on_wait(holder)
            told = True
        pause.wait(_POLL)


def _holder(handle: int) -> str:
    try:
        about = json.loads(os.pread(handle, 4096, 0))
        age = max(0, round(time.time() - about["since"]))
        return f"process {about['pid']}, for {age} s: {about['command']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not said its name yet"


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history. at: seconds since the epoch; converged None: no look has proved it yet."""

    id: str
    at: float
    environment: str
    trigger: str
    converged: bool | None
    outcomes: Sequence[dict[str, object]]


def rows_of(run: Run) -> list[dict[str, object]]:
    """What was done, as it is kept. Values of fields are not: they may be secrets."""
    return [
        {
            "id": str(outcome.step.id),
            "verb": outcome.step.verb.value,
            "result": outcome.result.value,
            "elapsed": round(outcome.elapsed, 3),
            "fields": [change.field for change in outcome.step.changes],
            **({"problem": outcome.problem.summary} if outcome.problem else {}),
        }
        for outcome in run.outcomes
        if outcome.result.value != "unchanged"
    ]


@contextlib.contextmanager
def _whole(base: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, and one wait for the disk instead of one for each."""
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
        base.execute("COMMIT")
    except BaseException:
        if base.in_transaction:  # SQLite ends it itself when the disk is full, and that is what must be told
            base.execute("ROLLBACK")
        raise


class History:
    """The runs of the past, newest first; the oldest beyond a thousand are forgotten.

    Not flushed to the disk: no apply waits for that, for nothing hangs on them. What lost power has left of it, where
    that is broken, is set aside, and it begins anew.
    """

    def __init__(self, state: Path) -> None:
        self._path = private_dir(state) / "history.sqlite"
        self._mended(self._open)

    def add(self, run: Run) -> None:
        """Write one run down."""
        rows = json.dumps(rows_of(run))
        values = (run.id, time.time(), run.plan.environment, run.trigger, int(run.converged), rows)
        self._mended(lambda: self._add(values))

    def runs(self, limit: int = 20) -> list[Entry]:
        """The newest runs first."""
        rows = self._mended(lambda: self._newest(limit))
        return [Entry(row[0], row[1], row[2], row[3], bool(row[4]), json.loads(row[5])) for row in rows]

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def _open(self) -> None:
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._base = sqlite3.connect(self._path, timeout=5, isolation_level=None)
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS runs"
            " (id TEXT PRIMARY KEY, at REAL, environment TEXT, trigger TEXT, converged INTEGER, outcomes TEXT)"
        )

    def _add(self, values: tuple[object, ...]) -> None:
        with _whole(self._base):
            self._base.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)", values)
            self._base.execute(
                "DELETE FROM runs WHERE id NOT IN (SELECT id FROM runs ORDER BY at DESC LIMIT ?)", (_KEPT_RUNS,)
            )

    def _newest(self, limit: int) -> list[tuple[Any, ...]]:
        return self._base.execute("SELECT * FROM runs ORDER BY at DESC LIMIT ?", (limit,)).fetchall()

    def _mended(self, work: Callable[[], T]) -> T:
        """``work``, on a new file where the old one turns out to be broken."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BROKEN:
                raise
        self._base.close()
        os.replace(self._path, self._path.with_name(f"{self._path.name}.broken"))
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
        self._open()
        return work()


class Events:
    """What watches told, oldest first; those beyond ten thousand are forgotten. For one thread.

    Kept apart from the runs, so that no ``apply`` waits for it; and not flushed to the disk one by one: the last of
    them may be lost with the power, and nothing hangs on them.
    """

    def __init__(self, state: Path) -> None:
        path = private_dir(state) / "events.sqlite"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._base = sqlite3.connect(path, timeout=5, isolation_level=None)
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS events"
            " (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, environment TEXT, event TEXT)"
        )
        self._added = 0

    def add(self, at: float, environment: str, event: dict[str, object]) -> None:
        """Write one down. at: seconds since the epoch."""
        self.add_all([(at, environment, event)])

    def add_all(self, events: Iterable[tuple[float, str, dict[str, object]]]) -> None:
        """All of them in one go, or none: one by one, a thousand take a fifth of a second."""
        rows = [(at, environment, json.dumps(event)) for at, environment, event in events]
        with _whole(self._base):
            self._base.executemany("INSERT INTO events (at, environment, event) VALUES (?, ?, ?)", rows)
            if -self._added % _SWEEP < len(rows):
                self._base.execute(
                    "DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (_KEPT_EVENTS,)
                )
        self._added += len(rows)

    def newest(self, limit: int, environment: str | None = None) -> list[dict[str, object]]:
        """The newest of one environment (None: of all), the oldest of them first."""
        rows = self._base.execute(
            "SELECT event FROM events WHERE ?1 IS NULL OR environment = ?1 ORDER BY number DESC LIMIT ?2",
            (environment, limit),
        )
        return [json.loads(row[0]) for row in rows][::-1]

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()
