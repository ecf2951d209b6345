"""GITOPS: the words: which repository, what is known of it, and what is to be so now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.preparation import Wanted
from reconciler.problems import Problem


def shown_url(url: str) -> str:
    """Without a user's name and password."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", url)


@dataclass(frozen=True, slots=True)
class Repository:
    """Where the manifests come from, and whom they must be from.

    url:            https or ssh (``ssh://…`` or ``user@host:path``); others only where ``protocols`` lists them
    ref:            the branch
    path:           the folder (its environment.yaml, else every manifest below) or file inside of the repository
    signers:        ssh's allowed signers file; keyring: exported OpenPGP keys. Both outside of the repository, and
                    written by root or the caller alone
    require_signed: None: yes as soon as signers or keyring is given
    key, known_hosts: of ssh; None: ssh's own
    timeout:        seconds that one conversation with the server may take
    """

    url: str = field(repr=False)
    ref: str = "main"
    path: str = "."
    signers: Path | None = None
    keyring: Path | None = None
    require_signed: bool | None = None
    protocols: Sequence[str] = ("https", "ssh")
    key: Path | None = None
    known_hosts: Path | None = None
    timeout: float = 60.0

    @property
    def shown(self) -> str:
        """The address as people are shown it: without a name and password that may be in it."""
        return shown_url(self.url)

    @property
    def signed(self) -> bool:
        """Whether every commit has to bear a signature of somebody who is listed."""
        if self.require_signed is not None:
            return self.require_signed
        return self.signers is not None or self.keyring is not None


@dataclass(frozen=True, slots=True)
class State:
    """What is known and decided. Commits are full hexadecimal ids.

    applied:   the last one that ``note_applied`` was told; outlives every restart
    head:      the newest that was accepted: fast-forward, and signed where that is asked for
    seen:      what the branch pointed at when the server last answered, accepted or not; None: the branch is gone
    pinned:    a rollback: this one is to be so until ``resume``
    suspended: nothing is to be applied until ``resume``
    observing: nothing is ever to be applied: plan and report only
    reached:   when the server last answered, in seconds since the epoch
    problem:   why ``head`` is not newer (server gone, branch gone, history rewritten, a bad signature), or why
               the newest accepted commit could not be taken (its manifests are wrong); None: all is well
    """

    applied: str | None = None
    head: str | None = None
    seen: str | None = None
    pinned: str | None = None
    suspended: bool = False
    observing: bool = False
    reached: float | None = None
    problem: Problem | None = None

    @property
    def target(self) -> str | None:
        """The commit that is to be so; None when nothing was accepted yet."""
        return self.pinned or self.head

    @property
    def may_apply(self) -> bool:
        """Whether a loop may change anything."""
        return not self.suspended and not self.observing


@dataclass(frozen=True, slots=True)
class Taken:
    """What is to be so now: ``wanted`` as ``commit`` says it.

    The last applied commit when the target's manifests are wrong: ``problems`` then says what is wrong with
    the target's. wanted None: there is nothing that could be taken.
    """

    commit: str | None
    wanted: Wanted | None
    problems: tuple[Problem, ...] = ()
