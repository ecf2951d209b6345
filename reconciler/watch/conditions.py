"""WATCH: how each resource is, in conditions that a person can wait for: Ready, Synced, RestartPending, Held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from reconciler.attachments import place
from reconciler.model import GUESTS, Condition, Desired, Observed, Outcome, Power, ResourceId, Result, Step, Verb
from reconciler.watch.unattended import Held

TYPES = ("Ready", "Synced", "RestartPending", "Held")


@dataclass(frozen=True, slots=True)
class Since:
    """A condition, and since when (seconds since the epoch) it has had this status."""

    condition: Condition
    since: float


@dataclass(frozen=True, slots=True)
class Look:
    """What the conditions of a resource are from: when it was read (seconds since the epoch), and in which revision
    it was; empty for what was not there, and for what has none."""

    at: float
    revision: str


@dataclass(slots=True)
class Board:
    """The conditions of every resource that is wanted."""

    _all: dict[ResourceId, dict[str, Since]] = field(default_factory=dict)
    _looks: dict[ResourceId, Look] = field(default_factory=dict)
    _counts: Counter[tuple[str, bool | None]] = field(default_factory=Counter)

    def note(self, id: ResourceId, look: Look) -> None:
        """It was looked at again."""
        self._looks[id] = look

    def looked(self, id: ResourceId) -> Look | None:
        """The last look at it; None when there was none."""
        return self._looks.get(id)

    def of(self, id: ResourceId) -> list[Since]:
        """In the order of TYPES; nothing for one that was never looked at."""
        here = self._all.get(id, {})
        return [here[type] for type in TYPES if type in here]

    def status(self, id: ResourceId, type: str) -> bool | None:
        """Whether it is so; None when that is not known."""
        found = self._all.get(id, {}).get(type)
        return found.condition.status if found else None

    def put(self, id: ResourceId, conditions: Iterable[Condition], now: float) -> list[Condition]:
        """Take these in; those whose status or reason is new come back."""
        here = self._all.setdefault(id, {})
        fresh: list[Condition] = []
        for one in conditions:
            old = here.get(one.type)
            kept = old is not None and old.condition.status == one.status
            here[one.type] = Since(one, old.since if old is not None and kept else now)
            if not kept:
                self._counts[one.type, one.status] += 1
            if not kept and old is not None:
                self._counts[one.type, old.condition.status] -= 1
            if old is None or (old.condition.status, old.condition.reason) != (one.status, one.reason):
                fresh.append(one)
        return fresh

    def forget(self, ids: Iterable[ResourceId]) -> None:
        """Nobody wants to know about these any more."""
        for id in ids:
            self._looks.pop(id, None)
            for type, since in self._all.pop(id, {}).items():
                self._counts[type, since.condition.status] -= 1

    def count(self, type: str, status: bool) -> int:
        """How many resources it is so for."""
        return self._counts[type, status]


_NOTHING_WAITS = Condition("RestartPending", False, "NothingWaits")
_NOT_HELD = Condition("Held", False, "NotHeld")
_AS_DECLARED = Condition("Ready", True, "AsDeclared")
_RUNNING = Condition("Ready", True, "Running")


@lru_cache(maxsize=64)
def _synced(words: str) -> Condition:
    return Condition("Synced", True, "AsDeclared", words)


def of_step(
    step: Step, want: Desired | None, seen: Observed | None, held: Mapping[ResourceId, Held]
) -> list[Condition]:
    """What a fresh look says. A step that is about to be carried out is not synced yet."""
    waiting = ", ".join(sorted({change.field for change in step.waiting}))
    pending = Condition("RestartPending", True, "Waiting", waiting) if waiting else _NOTHING_WAITS
    why = held.get(step.id)
    if step.verb is Verb.HOLD:
        reason, words = (why.reason, why.message) if why else ("Held", step.reason)
        known = None if seen is not None and seen.power is None and step.id.kind in GUESTS else False
        ready = (
            _ready(want, seen) if why and why.reason == "DriftReported" else Condition("Ready", known, reason, words)
        )
        return [ready, Condition("Synced", False, reason, words), pending, Condition("Held", True, reason, words)]
    if step.verb is Verb.NOOP:
        return [_ready(want, seen), _synced(step.reason), pending, _NOT_HELD]
    words = f"{step.verb.value}: {step.reason}"
    return [
        Condition("Ready", False, "Progressing", words),
        Condition("Synced", False, "Progressing", words),
        pending,
        _NOT_HELD,
    ]


def of_attachment(
    id: ResourceId, guests: Iterable[tuple[Step, Observed | None]], held: Mapping[ResourceId, Held]
) -> list[Condition]:
    """Why a Share, Device or PortForward is not as declared: a guest has not got it so. Nothing where all have.

    It has no steps of its own that would say so. guests: the step of each and how it is; None: it is not there.
    """
    for step, seen in guests:
        lacks = seen is None or any(change.path[:2] == place(step.id.kind, id) for change in step.changes)
        if not lacks or step.verb is Verb.NOOP:
            continue
        why = held.get(step.id)
        reason, words = (why.reason, why.message) if why is not None else ("Progressing", step.reason)
        words = f"{step.id}: {words}"
        states = (("Ready", False), ("Synced", False), ("Held", why is not None))
        return [Condition(type, status, reason, words) for type, status in states]
    return []


def of_outcome(outcome: Outcome) -> list[Condition]:
    """What came of a step. What was applied is only called synced by the next look."""
    if outcome.result not in (Result.FAILED, Result.BLOCKED):
        return []
    reason = "Failed" if outcome.result is Result.FAILED else "Blocked"
    words = outcome.problem.summary if outcome.problem else ""
    return [Condition("Ready", False, reason, words), Condition("Synced", False, reason, words)]


def _ready(want: Desired | None, seen: Observed | None) -> Condition:
    """In sync means that the last apply saw it ready; a guest also has to be doing what it is to do."""
    if want is None or want.id.kind not in GUESTS:
        return _AS_DECLARED
    if seen is None:
        return Condition("Ready", False, "Missing", "it does not exist")
    wanted = want.spec.get("power", Power.RUNNING)
    if wanted == Power.RUNNING and seen.power is not Power.RUNNING:
        return Condition("Ready", False, "NotRunning", f"it is {seen.power.value if seen.power else 'not known'}")
    return _RUNNING if wanted == Power.RUNNING else _AS_DECLARED
