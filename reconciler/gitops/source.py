"""GITOPS: the source that a loop asks: fetch, take, note what was applied; and what people decide about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from reconciler.gitops.state import Repository, State, Taken
from reconciler.preparation import Wanted


class GitSource:
    """One branch of one repository, and one path in it. Every method may be called from any thread."""

    def __init__(self, repository: Repository, state: Path, clock: Callable[[], float] = time.time) -> None:
        """state: the state folder (``paths.state_dir()``). Raises UsageError for a repository that cannot be asked."""
        self.repository = repository

    def state(self) -> State:
        """What is known now, without asking the server."""
        raise NotImplementedError

    def fetch(self) -> State:
        """Ask the server, verify what is new, accept it or say in ``problem`` why not. Never raises ReconcilerError."""
        raise NotImplementedError

    def take(self) -> Taken:
        """The target's manifests, composed and checked; where they are wrong, those of the last applied commit."""
        raise NotImplementedError

    def load(self, commit: str) -> Wanted:
        """What one accepted commit wants. Raises ManifestError with every problem."""
        raise NotImplementedError

    def note_applied(self, commit: str) -> State:
        """Remember that this commit is what is so now."""
        raise NotImplementedError

    def suspend(self) -> State:
        """Apply nothing until ``resume``."""
        raise NotImplementedError

    def resume(self) -> State:
        """Go on: neither suspended nor rolled back any more."""
        raise NotImplementedError

    def observe(self, on: bool = True) -> State:
        """Plan and report only."""
        raise NotImplementedError

    def rollback(self, revision: str) -> State:
        """Want this earlier commit until ``resume``. Raises UsageError unless it belongs to the accepted history."""
        raise NotImplementedError

    def accept(self, revision: str) -> State:
        """A person's word that rewritten history is right: go on from this commit (signed, where that is asked for).

        Raises UsageError when the branch does not point there, or the signature is not right.
        """
        raise NotImplementedError
