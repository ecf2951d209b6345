"""GITOPS: what outlives us: one small file a source, written whole or not at all, and the locks around it.

Two locks, both the kernel's, gone with whoever holds them: ``mirror`` for whoever works on the mirror (every git that
is started inherits it), ``state`` for the moment in which the file is read, changed and written.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.gitops.state import Repository, State
from reconciler.paths import private_dir, write_private
from reconciler.problems import Problem

_KEYS = ("applied", "head", "seen", "pinned", "suspended", "observing", "reached")
_SELDOM = 30.0
"""Seconds: that the server answered again, and nothing else, is not written down more often."""


@dataclass(frozen=True, slots=True)
class Known:
    """state: as a loop sees it; trust: who was listed when ``head`` was accepted."""

    state: State = field(default_factory=State)
    trust: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """The folder of one source."""

    folder: Path
    repository: Repository

    @classmethod
    def of(cls, state: Path, repository: Repository) -> Memory:
        """Its folder is named by what it is about."""
        about = "\0".join((repository.url, repository.ref, repository.path))
        return cls(state / "gitops" / hashlib.sha256(about.encode()).hexdigest()[:16], repository)

    def read(self) -> Known:
        """What is written; nothing, where nothing (or nothing readable) is."""
        try:
            data = json.loads((self.folder / "state.json").read_bytes())
            state = State(**{key: data[key] for key in _KEYS}, problem=_problem_in(data["problem"]))
            return Known(state, str(data["trust"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Known()

    def change(self, change: Callable[[Known], Known]) -> State:
        """Read, change, write; whoever else changes it waits."""
        with self.locked("state"):
            before = self.read()
            after = change(before)
            if _worth_writing(before, after):
                write_private(self.folder / "state.json", json.dumps(self._out(after), indent=1).encode())
            return after.state

    def _out(self, known: Known) -> dict[str, Any]:
        about = {"url": self.repository.shown, "ref": self.repository.ref, "path": self.repository.path}
        state = {key: getattr(known.state, key) for key in _KEYS}
        return {**about, **state, "trust": known.trust, "problem": _problem_out(known.state.problem)}

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[int]:
        """Hold a lock; the descriptor comes back, for children to inherit."""
        handle = os.open(private_dir(self.folder) / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[tuple[int, bool]]:
        """Hold the mirror; and whether whoever held it last did not come to the end."""
        with self.locked("mirror") as handle:
            died = os.pread(handle, 1, 0) == b"*"
            os.pwrite(handle, b"*", 0)
            yield handle, died
            os.ftruncate(handle, 0)


def _worth_writing(before: Known, after: Known) -> bool:
    old, new = before.state, after.state
    seldom = new.reached is not None and (old.reached is None or new.reached - old.reached >= _SELDOM)
    same = all(getattr(old, key) == getattr(new, key) for key in (*_KEYS[:-1], "problem"))
    return seldom or not same or before.trust != after.trust


def _problem_out(problem: Problem | None) -> list[str | None] | None:
    return None if problem is None else [problem.summary, problem.subject, problem.detail, problem.hint]


def _problem_in(data: Any) -> Problem | None:
    return None if data is None else Problem(data[0], None, *data[1:])
