"""WATCH: where what is wanted comes from. The last good set stays until a newer one is right as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from reconciler.again import Prepared, alike
from reconciler.model import Desired, ResourceId
from reconciler.preparation import Wanted
from reconciler.problems import ManifestError, Problem, UsageError
from reconciler.watch.files import Files


class Source(Protocol):
    """Something that a wanted set comes from, again and again. Used by one thread; ``wake`` may come from any."""

    wanted: Wanted | None
    """The last good set; None until there was one."""
    problems: tuple[Problem, ...]
    """Why the newest is not used; empty when it is."""
    readings: int
    """How often all of it has been read: that leaves much behind."""

    def due(self) -> float:
        """When ``refresh`` is to be called again at the latest, on the monotonic clock."""

    def refresh(self, force: bool = False) -> bool:
        """Look for a newer set; whether ``wanted`` or ``problems`` are others by now. force: read in any case."""

    def moved(self, before: Wanted) -> Collection[ResourceId]:
        """What of ``wanted`` is wanted otherwise than in that set, the last good one before, or not any more."""

    def hold(self) -> str:
        """Why nothing may be carried out; empty when it may."""

    def proved(self, wanted: Wanted) -> None:
        """Everything of this set was found as declared."""

    def rollback(self, revision: str) -> None:
        """Want what an earlier revision says, until ``resume``. From any thread; may wait. Raises UsageError."""

    def resume(self) -> None:
        """Want the newest again."""

    def status(self) -> Mapping[str, Any]:
        """What a person wants to know about it, as JSON: at least ``source``."""

    def close(self) -> None:
        """Let go of everything."""


class FolderSource:
    """Files and folders on this machine."""

    def __init__(self, paths: Sequence[str], wake: Callable[[], None]) -> None:
        self.wanted: Wanted | None = None
        self.problems: tuple[Problem, ...] = ()
        self.readings = 0
        self._paths = tuple(paths)
        self._prepared = Prepared(self._paths)
        self._begun = False
        self._known: frozenset[str] = frozenset()
        self._unseen: set[ResourceId] = set()
        self._step: tuple[Wanted, Collection[ResourceId]] | None = None
        self._files = Files(wake)
        self._files.watch(self._paths)

    def due(self) -> float:
        return self._files.due()

    def refresh(self, force: bool = False) -> bool:
        changed = self._files.changed()
        if changed is None and not force:
            return False
        wanted, problems = self.wanted, self.problems
        paths = changed.paths if changed is not None and not force else None
        if paths is None or not self._read_again(paths):
            self._read(scratch=force)
        return self.wanted is not wanted or self.problems != problems

    def moved(self, before: Wanted) -> Collection[ResourceId]:
        if self._step is not None and self._step[0] is before:
            return self._step[1]
        return changed(before.desired, self.wanted.desired if self.wanted is not None else {})

    def hold(self) -> str:
        return ""

    def proved(self, wanted: Wanted) -> None:
        pass

    def rollback(self, revision: str) -> None:
        raise UsageError(Problem("files have no earlier revisions", hint="watch --git has"))

    def resume(self) -> None:
        pass

    def status(self) -> Mapping[str, Any]:
        told = {"source": ", ".join(self._paths)}
        return told | ({"degraded": self._files.degraded} if self._files.degraded else {})

    def close(self) -> None:
        self._files.close()

    def _read_again(self, paths: Collection[str]) -> bool:
        """Whether these files were all that had to be looked at. What changes meanwhile is read once more, later."""
        before = self.wanted
        change = self._prepared.again(paths)
        if change is None or before is None:
            return False
        self._unseen |= change.moved
        if self._files.moved_on():
            return True
        if self._unseen:
            self.wanted, self._step, self._unseen = change.wanted, (before, self._unseen), set()
        self._hang_on(change.wanted.files)
        return True

    def _hang_on(self, files: frozenset[str]) -> None:
        """Watch these files, too, wherever they are."""
        fresh, self._known = files - self._known, files
        if not all(map(self._files.covers, fresh)):
            self._watch()

    def _watch(self) -> None:
        """Where the manifests are, and what else they hang on."""
        self._files.watch({*self._paths, *(file for file in self._known if not self._files.covers(file))})

    def _read(self, scratch: bool) -> None:
        """Never from files that change meanwhile: what is read is of one moment, or is read again later.

        scratch: whatever else they hang on is asked for again, too
        """
        if self._begun:
            self._watch()
        self._begun = True
        self.readings += 1
        try:
            found = self._prepared.whole(self.wanted.desired if self.wanted is not None else {}, scratch=scratch)
        except ManifestError as error:
            if not self._files.moved_on():
                self.problems = error.problems
            return
        if self._files.moved_on():
            self._prepared.forget()
            return
        if self.wanted is not None and found.environment != self.wanted.environment:
            self._prepared.forget()
            self.problems = (other_environment(self.wanted.environment, found.environment),)
            return
        self.problems, self._step, self._unseen = (), None, set()
        if self.wanted is None or not same(self.wanted, found):
            self.wanted = found
        self._hang_on(found.files)


def same(one: Wanted, other: Wanted) -> bool:
    """Whether both want the very same, wherever it stands in the files."""
    return settings(one) == settings(other) and not changed(one.desired, other.desired)


def settings(wanted: Wanted) -> Wanted:
    """What is wanted of the environment as a whole."""
    return replace(wanted, desired={}, files=frozenset())


def changed(before: Mapping[ResourceId, Desired], after: Mapping[ResourceId, Desired]) -> set[ResourceId]:
    """Which resources are wanted otherwise than before, or not any more."""
    gone = {id for id in before if id not in after}
    return gone | {id for id, want in after.items() if not alike(before.get(id), want)}


def other_environment(old: str, new: str) -> Problem:
    """Why a set that is called otherwise is not taken instead."""
    return Problem(
        f'the environment is called "{new}" by now',
        subject=f"Environment/{old}",
        hint="what the old one made would be left alone: rename it back, or start watching anew",
    )
