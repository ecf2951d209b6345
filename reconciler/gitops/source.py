"""GITOPS: the source that a loop asks: fetch, take, note what was applied; and what people decide about it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from reconciler import preparation, validation
from reconciler.again import Prepared
from reconciler.composition import Composition
from reconciler.gitops.git import Failed, Git
from reconciler.gitops.memory import Known, Memory
from reconciler.gitops.mirror import Mirror, Trouble
from reconciler.gitops.signers import Signers, signers
from reconciler.gitops.state import Repository, State, Taken
from reconciler.gitops.tree import ROOT, AtCommit, Tree
from reconciler.preparation import Wanted
from reconciler.problems import ManifestError, Problem, ReconcilerError, UsageError

_BRANCH = re.compile(r"(?!-)(?!.*(\.\.|//|@\{|\.lock(/|$)))[A-Za-z0-9_][A-Za-z0-9._/@+-]*(?<![/.])", re.ASCII)
_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII)
_WRONG = "the manifests of commit"


class GitSource:
    """One branch of one repository, and one path in it. Every method may be called from any thread."""

    def __init__(self, repository: Repository, state: Path, clock: Callable[[], float] = time.time) -> None:
        """state: the state folder (``paths.state_dir()``). Raises UsageError for a repository that cannot be asked."""
        _check(repository)
        self.repository = repository
        self._memory = Memory.of(state, repository)
        self._clock = clock
        self._trees: dict[str, Tree] = {}
        self._prepared = Prepared()
        self._one_at_a_time = threading.Lock()
        self._sure: str | None = None  # a commit that the mirror was seen to have

    def state(self) -> State:
        """What is known now, without asking the server."""
        return self._memory.read().state

    def fetch(self, news: bool = False) -> State:
        """Ask the server, verify what is new, accept it or say in ``problem`` why not. Never raises ReconcilerError.

        news: somebody says that there is something new, so it is not asked whether there is
        """
        try:
            with self._mirror() as mirror:
                return self._fetch(mirror, news)
        except Trouble as trouble:
            return self._note(trouble.problem, trouble.reached)
        except ReconcilerError as error:
            return self._note(error.problems[0], reached=False)
        except (Failed, OSError) as error:
            return self._note(self._broken(error), reached=False)

    def _fetch(self, mirror: Mirror, news: bool) -> State:
        """One look at the server. A mirror that is broken is made anew, once."""
        known, listed = self._memory.read(), signers(self.repository, self._memory.folder)
        try:
            new = self._newest(mirror, known, listed, news)
        except Failed:
            if mirror.is_whole():
                raise
            self._sure = None
            with mirror.anew():
                new = self._newest(mirror, known, listed, news=False)
        if new == known.state.head and self._sure == new:
            return self._accepted(new, listed)
        with ThreadPoolExecutor(1) as beside:
            kept = beside.submit(mirror.keep, "head", new)
            if known.state.pinned is None:
                self._list(mirror, new)  # is asked for next
            kept.result()
        self._sure = new
        state = self._accepted(new, listed)
        mirror.tidy()
        return state

    def _newest(self, mirror: Mirror, known: Known, listed: Signers, news: bool) -> str:
        """The branch as it is now: known already, or fetched and judged. Raises Trouble, Failed."""
        new = self._news(mirror) if news else None
        there = new or self._ask(mirror)
        if there == known.state.head and listed.digest == known.trust and (self._sure == there or mirror.has(there)):
            self._sure = there
            return there
        new = new or mirror.fetch()
        try:
            self._judge(mirror, known, new, listed)
        except Trouble:
            self._decide(seen=new)  # what is accepted is noted as seen, too, with one write
            raise
        return new

    def _news(self, mirror: Mirror) -> str | None:
        """The branch, fetched at once; None where that is not to be had: asking says why."""
        try:
            return mirror.fetch()
        except Trouble:
            return None

    def _ask(self, mirror: Mirror) -> str:
        there = mirror.ask()
        if there is None:
            hint = "what was accepted last stays, until there is a branch of this name again"
            self._decide(seen=None)
            raise Trouble(Problem("the branch is gone", None, mirror.name, hint=hint), reached=True)
        return there

    def _judge(self, mirror: Mirror, known: Known, new: str, listed: Signers) -> None:
        """Accept nothing but what comes after what was accepted, every commit of it signed. Raises Trouble."""
        head, applied = known.state.head, known.state.applied
        base = applied if applied not in (None, head) and mirror.has(str(applied)) else head
        with ThreadPoolExecutor(2) as beside:  # all of it is git at work: none of them waits for another
            since = beside.submit(lambda: list(mirror.since(new, base))) if self.repository.signed else None
            tip = beside.submit(mirror.verify, [new], listed) if self.repository.signed else None
            follows = head is None or mirror.follows(new, head)
        if head is not None and not follows:
            summary = f"the history was rewritten: {new[:12]} does not come after {head[:12]}"
            hint = (
                f"push what comes after it; or, if it is right: reconciler rollback {new}; what was accepted last stays"
            )
            raise Trouble(Problem(summary, None, mirror.name, hint=hint), reached=True)
        if since is not None and tip is not None:
            mirror.verify([commit for commit in since.result() if commit != new], listed)
            tip.result()  # the newest is always looked at, also when nothing is newer than what was applied

    def _accepted(self, head: str, listed: Signers) -> State:
        def change(known: Known) -> Known:
            problem = known.state.problem if _is_about(known.state.problem, known.state.pinned or head) else None
            state = replace(known.state, head=head, seen=head, reached=self._clock(), problem=problem)
            return Known(state, listed.digest)

        return self._memory.change(change)

    def _note(self, problem: Problem | None, reached: bool) -> State:
        def change(known: Known) -> Known:
            state = replace(known.state, problem=problem)
            return replace(known, state=replace(state, reached=self._clock()) if reached else state)

        return self._memory.change(change)

    def _broken(self, error: Failed | OSError) -> Problem:
        words = error.words if isinstance(error, Failed) else str(error.strerror)
        return Problem("the mirror cannot be used", None, self.repository.shown, words, "is git installed?")

    def take(self) -> Taken:
        """The target's manifests, composed and checked; where they are wrong, those of the last applied commit."""
        state = self.state()
        if state.target is None:
            return Taken(None, None, (state.problem,) if state.problem is not None else ())
        try:
            wanted = self.load(state.target)
        except ManifestError as error:
            problems = error.problems
        else:
            if _is_about(state.problem, state.target):
                self._note(None, reached=False)
            return Taken(state.target, wanted)
        self._note(_summed(state.target, problems), reached=False)
        if state.applied is None or state.applied == state.target:
            return Taken(None, None, problems)
        try:
            return Taken(state.applied, self.load(state.applied), problems)
        except ManifestError:
            return Taken(None, None, problems)

    def load(self, commit: str) -> Wanted:
        """What one accepted commit wants. Raises ManifestError with every problem."""
        with self._read(commit) as at, self._one_at_a_time:
            return self._prepared.whole(origin=at)

    def render(self, commit: str) -> Composition:
        """Its documents, composed and checked, and no further. Raises ManifestError."""
        parsed = validation.Parsed()
        with self._read(commit) as at:
            return preparation.compose(at.load(parsed), load=partial(at.tree.load, parsed=parsed))

    @contextlib.contextmanager
    def _read(self, commit: str) -> Iterator[AtCommit]:
        """One commit's files, from our path on."""
        try:
            at = AtCommit(self._tree(commit), f"{ROOT}/{self.repository.path}")
        except (Failed, OSError) as error:
            raise ManifestError(self._broken(error)) from None
        try:
            yield at
        except (Failed, OSError) as error:
            raise ManifestError(self._broken(error)) from None
        except ManifestError as error:
            raise ManifestError(map(at.tree.told, error.problems)) from None

    def _tree(self, commit: str) -> Tree:
        if commit in self._trees:
            return self._trees[commit]
        with self._mirror() as mirror:
            return self._list(mirror, commit)

    def _list(self, mirror: Mirror, commit: str) -> Tree:
        """What an accepted commit holds; the last two are remembered. Raises Failed."""
        trees = self._trees
        if commit not in trees:
            tree = Tree.of(replace(mirror.git, held=None), commit)
            self._trees = trees = {**dict(list(trees.items())[-1:]), commit: tree}
        return trees[commit]

    def note_applied(self, commit: str) -> State:
        """Remember that this commit is what is so now."""
        with contextlib.suppress(Failed, OSError), self._mirror() as mirror:
            mirror.keep("applied", commit)
        return self._decide(applied=commit)

    def suspend(self) -> State:
        """Apply nothing until ``resume``."""
        return self._decide(suspended=True)

    def resume(self) -> State:
        """Go on: neither suspended nor rolled back any more."""
        return self._decide(suspended=False, pinned=None)

    def observe(self, on: bool = True) -> State:
        """Plan and report only."""
        return self._decide(observing=on)

    def rollback(self, revision: str) -> State:
        """Want this earlier commit until ``resume``. Raises UsageError unless it belongs to the accepted history.

        The whole id of the commit that the branch points at now is a person's word that it is right: see ``accept``.
        """
        state = self.state()
        if revision == state.seen and revision != state.head:
            return self.accept(revision)
        with self._asked() as mirror:
            commit = mirror.find(revision)
            if commit is None or state.head is None or not mirror.follows(state.head, commit):
                hint = "name a commit that the accepted one comes after, by its hexadecimal id"
                raise UsageError(Problem("not in the accepted history", subject=revision, hint=hint))
            if self.repository.signed:
                mirror.verify([commit], signers(self.repository, self._memory.folder))
        return self._decide(pinned=commit)

    def accept(self, revision: str) -> State:
        """A person's word that rewritten history is right: go on from this commit (signed, where that is asked for).

        Raises UsageError when the branch does not point there, or the signature is not right.
        """
        with self._asked() as mirror:
            commit, listed = mirror.find(revision), signers(self.repository, self._memory.folder)
            if commit is None or commit != mirror.seen():
                raise UsageError(Problem("the branch does not point there", subject=revision, hint="fetch, then look"))
            if self.repository.signed:
                mirror.verify([commit], listed)
            mirror.keep("head", commit)
            self._decide(pinned=None)
            return self._accepted(commit, listed)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[Mirror]:
        """The mirror, for what a person asked for: trouble is theirs to see."""
        try:
            with self._mirror() as mirror:
                yield mirror
        except Trouble as trouble:
            raise UsageError(trouble.problem) from None
        except (Failed, OSError) as error:
            raise UsageError(self._broken(error)) from None

    @contextlib.contextmanager
    def _mirror(self) -> Iterator[Mirror]:
        given = self.repository
        with self._memory.at_work() as (held, died):
            git = Git(self._memory.folder / "mirror.git", given.protocols, given.key, given.known_hosts, held)
            mirror = Mirror(git, given)
            mirror.prepare(tidy=died)
            yield mirror

    def _decide(self, **fields: str | bool | None) -> State:
        return self._memory.change(partial(_with, fields=fields))


def _with(known: Known, fields: dict[str, str | bool | None]) -> Known:
    return replace(known, state=replace(known.state, **fields))  # type: ignore[arg-type]  # names and types of State


def _is_about(problem: Problem | None, commit: str) -> bool:
    """Whether it says that this commit's manifests are wrong."""
    return problem is not None and problem.summary.startswith(f"{_WRONG} {commit[:12]} ")


def _summed(commit: str, problems: tuple[Problem, ...]) -> Problem:
    """All of a commit's problems as one, for whoever asks how it is."""
    detail = "\n".join(map(str, problems[:10]))
    return Problem(f"{_WRONG} {commit[:12]} are wrong", None, None, detail, "what was applied last stays")


def _check(repository: Repository) -> None:
    found = _PROTOCOL.match(repository.url)
    protocol = found[1] if found else "ssh" if re.match(r"[^/:\s]+:[^/:]", repository.url) else "file"
    url = repository.shown
    if not repository.url.isprintable() or repository.url.startswith("-") or "::" in repository.url.split("/")[0]:
        raise UsageError(Problem("not the address of a repository", subject=ascii(url)))
    if protocol not in repository.protocols:
        hint = f"use one of {', '.join(repository.protocols)}, or allow it: --allow-protocol {protocol}"
        raise UsageError(Problem(f"the protocol {protocol} is not allowed", subject=url, hint=hint))
    if not _BRANCH.fullmatch(repository.ref):
        raise UsageError(Problem("not the name of a branch", subject=ascii(repository.ref)))
    if repository.signed and repository.signers is None and repository.keyring is None:
        raise UsageError(
            Problem("whose signatures count?", subject=url, hint="name an allowed signers file or a keyring")
        )
