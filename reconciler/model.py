"""The words of the flow: what is wanted, what is seen, what will be done, what came of it.

Every type is frozen; nothing here does I/O. ``spec`` is always plain JSON-like data in the *resolved* terms
that docs/lifecycle.md lists per kind (sizes in bytes, durations in seconds, named lists as mappings), on the
desired and on the observed side alike, so that the two can be compared field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.desired import (
    ATTACHMENTS,
    AUTO,
    DATA_BEARING,
    GUESTS,
    LOCAL_HOST,
    MOST_PLUGGED,
    QEMU,
    Desired,
    Json,
    ResourceId,
    Spec,
    lxd_backend,
)
from reconciler.problems import Problem
from reconciler.sockets import Socket

__all__ = [
    "ATTACHMENTS",
    "AUTO",
    "DATA_BEARING",
    "GUESTS",
    "LOCAL_HOST",
    "MOST_PLUGGED",
    "QEMU",
    "Change",
    "Condition",
    "Desired",
    "Effect",
    "Json",
    "Observed",
    "Outcome",
    "Path",
    "Plan",
    "Power",
    "ResourceId",
    "Result",
    "Rule",
    "Run",
    "Snapshot",
    "Spec",
    "Step",
    "Verb",
    "World",
    "lxd_backend",
]

Path = tuple[str, ...]


class Power(StrEnum):
    """What a guest is doing; ERROR is only ever seen, never wanted."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    ERROR = "error"


class Verb(StrEnum):
    """The closed alphabet of what a step does."""

    NOOP = "noop"
    CREATE = "create"
    UPDATE = "update"
    RESTART = "restart"
    REPLACE = "replace"
    DELETE = "delete"
    HOLD = "hold"


class Effect(StrEnum):
    """What a change does to whoever uses the resource, from harmless to harmful (see ``severity``).

    LIVE       takes effect at once; nothing is interrupted
    STOP       the guest goes down (or is paused) because the manifest says so
    RESTART    the guest goes down and comes back
    REPLACE    the resource is deleted and made anew
    IMPOSSIBLE cannot be done to an existing resource: the step is held
    UNKNOWN    the harm is not known, and never guessed: the step is held
    """

    NONE = "none"
    LIVE = "live"
    STOP = "stop"
    RESTART = "restart"
    REPLACE = "replace"
    IMPOSSIBLE = "impossible"
    UNKNOWN = "unknown"

    @property
    def severity(self) -> int:
        """Rank for ``max``: higher is worse."""
        return _SEVERITY[self]


_SEVERITY = {effect: rank for rank, effect in enumerate(Effect)}


class Result(StrEnum):
    """How a step ended."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    BLOCKED = "blocked"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Rule:
    """effect on a running guest (or on the resource, where there is no guest); note: why, shown to people.

    smaller: the effect of a number that shrinks, where that is another one: a disk grows and never shrinks
    less:    why, of a number that shrinks, where there is more to be said of that
    least, most, outside: a new number below ``least`` or above ``most`` has the effect ``outside`` instead
    plugs:   adding this takes one of the guest's free ports (see Observed.room)
    like:    for a whole thing that comes or goes: the first of these whose fields it has, and the rule that counts then
    """

    effect: Effect
    note: str = ""
    smaller: Effect | None = None
    less: str = ""
    least: int | None = None
    most: int | None = None
    outside: Effect | None = None
    plugs: bool = False
    like: tuple[tuple[Mapping[str, str], Rule], ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """One fact about a resource that a person may wait for: ``Ready``, ``GuestAgent``, ``Tcp`` …

    status None: not known (for instance because the guest is not running);
    since: when it came to be so, in seconds since the epoch, where somebody watched; None elsewhere.
    """

    type: str
    status: bool | None
    reason: str
    message: str = ""
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One resource as a backend has it, in the same terms as Desired.

    power:       None for what has none
    owned:       it bears our mark (of whatever environment)
    revision:    opaque; changes whenever the object changes
    environment: which environment's mark it bears
    applied:     the spec that our last apply set, from the mark on the object itself
    pending:     why our last apply of it is not finished ("create", "files" …); None when it is
    needs:       what it needs, for deleting in order
    rules:       field pattern → where *this* guest as it stands differs from its backend's effects table
    room:        how many more things can be plugged into it while it runs; None: not known, or without a limit
    later:       the spec that waits for its next start, from the mark; None when nothing waits
    """

    id: ResourceId
    backend: str
    spec: Spec
    power: Power | None = None
    owned: bool = False
    revision: str = ""
    environment: str | None = None
    applied: Spec | None = None
    pending: str | None = None
    needs: tuple[ResourceId, ...] = ()
    conditions: tuple[Condition, ...] = ()
    rules: Mapping[str, Rule] = field(default_factory=dict)
    room: int | None = None
    later: Spec | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one backend answered. With ``problem`` it did not (fully) answer: silence is not absence."""

    backend: str
    taken: float
    resources: Mapping[ResourceId, Observed]
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class World:
    """All snapshots of one observation.

    listening: what this machine listens on; empty when nobody wanted to know
    heard:     guest that runs → what listens inside of it; only of those whose ports are followed, and that said so
    """

    snapshots: Mapping[str, Snapshot]
    listening: frozenset[Socket] = frozenset()
    heard: Mapping[ResourceId, frozenset[Socket]] = field(default_factory=dict)

    def find(self, backend: str, id: ResourceId) -> Observed | None:
        """The resource as its backend has it; None when absent *or unknown*: check ``problem`` first."""
        snapshot = self.snapshots.get(backend)
        return snapshot.resources.get(id) if snapshot else None

    def problem(self, backend: str) -> Problem | None:
        """Why this backend is not known; None when it is."""
        snapshot = self.snapshots.get(backend)
        if snapshot is None:
            return Problem(f"backend {backend} was not observed")
        return snapshot.problem

    def __iter__(self) -> Iterator[Observed]:
        for snapshot in self.snapshots.values():
            yield from snapshot.resources.values()


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. op: ``add`` | ``change`` | ``remove``; effect: what making it so does;
    destroys: data goes with it, which nobody else has."""

    op: str
    path: Path
    old: Json
    new: Json
    effect: Effect = Effect.NONE
    note: str = ""
    destroys: bool = False

    @property
    def field(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do to one resource; ``after`` are the steps (by resource id) that must have ended well.

    waiting: what differs and is left for later, because it would do more harm than ``updatePolicy`` lets happen
    awaits:  the step after which it can be told what (else) is to be done: then it is looked at once more
    """

    id: ResourceId
    backend: str
    verb: Verb
    reason: str
    effect: Effect = Effect.NONE
    changes: tuple[Change, ...] = ()
    after: tuple[ResourceId, ...] = ()
    notes: tuple[str, ...] = ()
    waiting: tuple[Change, ...] = ()
    awaits: ResourceId | None = None

    @property
    def disruptive(self) -> bool:
        """Whether a person has to be asked: something stops, restarts, is replaced or deleted."""
        harm = self.effect in (Effect.STOP, Effect.RESTART, Effect.REPLACE)
        return harm or self.deletes

    @property
    def deletes(self) -> bool:
        """Whether something is gone afterwards: the resource, or data of its own."""
        return self.verb is Verb.DELETE or any(change.destroys for change in self.changes)


@dataclass(frozen=True, slots=True)
class Plan:
    """A DAG of steps, one for every resource we looked at, also those left alone.

    applyable: there is something to do, and it may be done
    complete:  doing it would leave nothing open (no hold)
    notes:     remarks about the whole, such as what prune would delete
    blocker:   why nothing of it may be applied (the deletion guard)
    adjusted:  what a step is carried out with, where that is not what the manifests say: some of it waits
    """

    environment: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    blocker: Problem | None = None
    adjusted: Mapping[ResourceId, Desired] = field(default_factory=dict)

    @property
    def applyable(self) -> bool:
        return self.blocker is None and bool(self.work)

    @property
    def complete(self) -> bool:
        return self.blocker is None and not any(step.verb is Verb.HOLD for step in self.steps)

    @property
    def work(self) -> tuple[Step, ...]:
        """The steps that do something."""
        return tuple(step for step in self.steps if step.verb not in (Verb.NOOP, Verb.HOLD))

    @property
    def in_sync(self) -> bool:
        """Nothing to do, and nothing held: the world is as wanted."""
        return all(step.verb is Verb.NOOP for step in self.steps)

    def summary(self) -> dict[str, int]:
        """How many steps of each verb, verbs without steps left out."""
        counts: dict[str, int] = {}
        for step in self.steps:
            counts[step.verb.value] = counts.get(step.verb.value, 0) + 1
        return counts


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one step ended; elapsed in seconds. bug: what escaped from our own code, so that the account stays whole;
    unsure: it failed, and its backend cannot say whether it happened all the same: only a new look can."""

    step: Step
    result: Result
    elapsed: float = 0.0
    problem: Problem | None = None
    bug: BaseException | None = None
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One pass: what was planned, what came of it, and whether a fresh look says it converged."""

    id: str
    trigger: str
    plan: Plan
    outcomes: Sequence[Outcome] = ()
    converged: bool = False
