"""What the engine asks of a backend, and nothing more. Backends satisfy it; execution and observation call it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from reconciler.effects import Table
from reconciler.model import Condition, Desired, Observed, ResourceId, Snapshot, Step
from reconciler.sockets import Socket

Tell = Callable[[str], None]
"""Says in a few words what is being done right now; shown as live progress beside the resource."""

Clock = Callable[[], float]
"""Seconds since the epoch."""

AT_WORK: ContextVar[Callable[[], None] | None] = ContextVar("AT_WORK", default=None)
"""Set around ``apply``: gives back the step's place among those at work. See ``only_watching``."""


def only_watching() -> None:
    """Said inside ``apply`` when the work is done and the guest is only watched: another step may begin meanwhile."""
    if give_back := AT_WORK.get():
        give_back()


@dataclass(frozen=True, slots=True)
class Settings:
    """What every backend is given. timeout: seconds that one step may take before it ends as failed;
    confirm_delete: deleting data that LXD deletes without asking (a volume's snapshots) was confirmed."""

    environment: str
    state: Path
    runtime: Path
    timeout: float = 300.0
    confirm_delete: bool = False


class Backend(Protocol):
    """One place where resources live: the QEMUs of this host, or one LXD.

    Every method but ``close`` may be called from several threads at once.
    """

    @property
    def name(self) -> str:
        """``qemu`` or ``lxd/<host>``: what Desired.backend says."""

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        """Read everything (or ``only`` these) in one bulk read. Raises Unreachable; never guesses."""

    def effects(self) -> Table:
        """The effects table for the version that answered the last observation."""

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        """Carry out one step (create, update, restart, replace, delete). Idempotent: doing it twice, or after
        a crash half-way, ends in the same state. Returns when the guest is as wanted *and* ready; raises BackendError.
        """

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        """The readiness conditions of a guest right now, each tried once."""

    def listening(self, id: ResourceId) -> frozenset[Socket]:
        """What listens inside of a guest that runs, by its own kernel's word. Raises BackendError."""

    def close(self) -> None:
        """Let go of connections; the guests stay."""


Wake = Callable[[Collection[ResourceId] | None], None]
"""Says what may have changed: these, or (None) anything, because nobody listened for a while. A name of ``*`` stands
for every one of that kind."""


class Stop(Protocol):
    """Whether it is time to end; ``fileno`` can be waited for, and is readable from then on."""

    def is_set(self) -> bool: ...
    def wait(self, seconds: float) -> bool: ...
    def fileno(self) -> int: ...


@runtime_checkable
class Watchable(Protocol):
    """A backend that tells when something of it may have changed. What it tells is only ever a hint to look.

    announces: whether it tells of anything (None) as soon as it listens
    """

    announces: bool

    def watch(self, wake: Wake, stop: Stop) -> None:
        """Tell, until ``stop``; comes back after lost connections by itself. Raises nothing that we name."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a running guest takes. cpu: seconds of processor time since its start; memory: bytes;
    processes: None where only the guest itself knows; started: seconds since the epoch, None when not known."""

    cpu: float
    memory: int
    processes: int | None
    started: float | None


FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at a path in a guest, a link itself and not what it leads to. type: FILE, FOLDER, LINK or OTHER."""

    type: str
    mode: int
    uid: int
    gid: int


class GuestFiles(Protocol):
    """The files of one guest, by absolute paths. Every method raises BackendError."""

    def entry(self, path: str) -> Entry | None:
        """What is there; None when there is nothing."""

    def names(self, path: str) -> list[str]:
        """What a folder holds, as the guest says it: nothing that may be believed."""

    def target(self, path: str) -> str:
        """Where a link leads."""

    def stream(self, path: str, sink: Callable[[bytes], None]) -> None:
        """A file's contents piece by piece."""

    def write(self, path: str, data: BinaryIO, mode: int, uid: int, gid: int) -> None:
        """Create a file with these contents, or overwrite one: then its mode and owner may stay."""

    def folder(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Make a folder."""

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, where nothing else is."""

    def remove(self, path: str) -> bool:
        """Delete a file or a link; False when it was not there."""


@dataclass(frozen=True, slots=True)
class Call:
    """A command for a guest, whose streams are our own stdin, stdout and stderr.

    stdin: whether it reads ours; timeout: seconds that it may take, None: as many as it likes
    user: the name or number of an account in the guest; root when None
    """

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False
    timeout: float | None = None
    user: str | None = None


class Guests(Protocol):
    """What the guest verbs of the command line need; both backends offer it."""

    def power(self, id: ResourceId, action: str, force: bool, timeout: float, tell: Tell) -> None:
        """action: start | stop | restart."""

    def logs(self, id: ResourceId, follow: bool) -> Iterator[bytes]:
        """Serial console (VM) or console log (container), as it is; with ``follow`` until the guest ends."""

    def execute(self, id: ResourceId, call: Call) -> int:
        """Run a command in the guest; its exit code (128+n for signal n)."""

    def addresses(self) -> Mapping[ResourceId, Sequence[str] | None]:
        """The guests that run and that this host reaches directly: their own addresses in its networks; None of one
        that has such a card, and does not say."""

    def usage(self) -> Mapping[ResourceId, Usage]:
        """What each guest that runs has used so far."""

    def files(self, id: ResourceId) -> AbstractContextManager[GuestFiles]:
        """Its files, as root in it sees them."""

    def shell(self, id: ResourceId, user: str | None = None) -> int:
        """An interactive shell on our terminal; the exit code. user: an account in the guest; root when None."""

    def monitor(self, id: ResourceId, words: Sequence[str]) -> int:
        """What runs the guest, spoken to itself: one command, or without words a conversation; the exit code."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``doctor``. ok None: not needed here, or cannot be told. fix: mends it, or raises BackendError."""

    name: str
    ok: bool | None
    found: str
    hint: str = ""
    fix: Callable[[Tell], None] | None = None
    facts: Mapping[str, Any] | None = None
