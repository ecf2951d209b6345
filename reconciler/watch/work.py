"""WATCH, the work: looks and steps as they are begun by one thread, done by workers, and judged when they come back.

Nothing here decides what is wanted or whose turn it is; see ``daemon``. Only the deciding thread calls it: what
workers have done comes back as messages.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from reconciler.model import ATTACHMENTS, GUESTS, Condition, Outcome, ResourceId, Result, Step, Verb
from reconciler.planning.following import is_followed
from reconciler.ports import Backend
from reconciler.preparation import Wanted
from reconciler.queue import WorkQueue
from reconciler.resolution.bonds import Bonds
from reconciler.watch import passes
from reconciler.watch.conditions import Board, Look, of_attachment, of_outcome, of_step
from reconciler.watch.inbox import Inbox
from reconciler.watch.journal import Journal
from reconciler.watch.meter import Meter
from reconciler.watch.passes import Island, Looked, Pass
from reconciler.watch.restarts import Restarts
from reconciler.watch.runs import Runs
from reconciler.watch.unattended import Held, Rules, has_ended, is_drift, islands

_GRACE = 20.0
"""Seconds that steps at work get when we are to end."""
_LOOKS = 16
_FUTILE = 2
FOLLOW = 2.0
"""Seconds between two looks at what listens in a guest whose ports are followed: nobody tells of that."""


class Work:
    """Everything that is waiting, being looked at, or being carried out."""

    def __init__(
        self,
        inbox: Inbox,
        journal: Journal,
        runs: Runs,
        meter: Meter,
        rules: Callable[[Wanted], Rules],
        parallel: int,
    ) -> None:
        self.inbox, self.journal, self.runs, self.meter = inbox, journal, runs, meter
        self.board = Board()
        self.queue: WorkQueue[ResourceId] = WorkQueue(chance=random.random)
        self.restarts: Restarts[ResourceId] = Restarts()
        self.wanted: Wanted | None = None
        self.users = Bonds()
        self.backends: Mapping[str, Backend] = {}
        self.stop = threading.Event()
        self._rules = rules
        self._parallel = parallel
        self._pool = ThreadPoolExecutor(_LOOKS, thread_name_prefix="watch")
        self._looking: set[str] = set()
        self._parked: dict[str, set[ResourceId]] = {}
        self._behind: dict[ResourceId, set[ResourceId]] = {}
        self._at_work: set[frozenset[ResourceId]] = set()
        self._drifted: set[ResourceId] = set()
        self._unproved: set[ResourceId] = set()
        self._leftovers: set[tuple[ResourceId, str]] = set()

    @property
    def looking(self) -> bool:
        """Whether something is being looked at."""
        return bool(self._looking)

    @property
    def leaves_some(self) -> bool:
        """Whether something that is no longer declared was held where it would be pruned."""
        return bool(self._leftovers)

    @property
    def busy(self) -> bool:
        """Whether anything is being looked at or carried out."""
        return bool(self._looking or self._at_work)

    def in_sync(self) -> bool:
        """Whether everything that is wanted was found as declared when it was last looked at."""
        due = self.queue.next_due()
        if self.wanted is None or self.busy or (due is not None and due <= time.monotonic()):
            return False
        return self.board.count("Synced", True) == len(self.wanted.desired)

    def is_futile(self, id: ResourceId) -> bool:
        """Whether it was made so again and again, and never stayed so: its own doings are events, and hurry nothing."""
        return id in self._unproved and self.queue.failures(id) > _FUTILE

    def want(self, wanted: Wanted, moved: Collection[ResourceId]) -> None:
        """This is wanted from now on; moved: what is wanted otherwise than before, or not any more."""
        self.wanted = wanted
        gone = [id for id in moved if id not in wanted.desired]
        self.queue.forget(gone)
        self.board.forget(gone)
        for id in moved:
            self.restarts.forget(id)
            self.users.put(id, want.needs if (want := wanted.desired.get(id)) is not None else ())

    def look(self, now: float, everything: bool) -> None:
        """Look at what is due; everything: at all that is declared, and with prune also at what is not."""
        assert self.wanted is not None
        taken = self.queue.take(now)
        gone = [id for id in taken if id not in self.wanted.desired]
        for id in gone:
            self.queue.done(id, now)
        keys = {id for id in taken if id in self.wanted.desired}
        if everything:
            self._send(Pass(self.wanted, frozenset(keys), True, self.backends), "*")
            return
        for id in keys:
            self._parked.setdefault(self.wanted.desired[id].backend, set()).add(id)
        self._send_parked()

    def _send_parked(self) -> None:
        """One look at a time into each backend; what comes meanwhile goes into the next one."""
        assert self.wanted is not None
        for name in [name for name in self._parked if name not in self._looking]:
            keys = frozenset(self._parked.pop(name))
            only = passes.with_attachments(keys, self.users)
            self._send(Pass(self.wanted, keys, False, self.backends, only), name)

    def _send(self, about: Pass, name: str) -> None:
        self._looking.add(name)
        rules = self._rules(about.wanted)

        def work() -> None:
            began = time.monotonic()
            try:
                looked = passes.look(about, rules)
            except BaseException as error:  # noqa: BLE001  a bug of ours: told, and tried again later
                failure = error
                self.meter.looked(time.monotonic() - began, "error")
                self.inbox.put(lambda: self._not_looked(about, name, failure))
            else:
                self.meter.looked(time.monotonic() - began, _result(looked))
                self.inbox.put(lambda: self._looked(looked, name))

        self._pool.submit(work)

    def _not_looked(self, about: Pass, name: str, error: BaseException) -> None:
        self._looking.discard(name)
        self.broken(name, error)
        for id in about.keys:
            self._done(id, ok=False)
        self._send_parked()

    def _looked(self, looked: Looked, name: str) -> None:
        self._looking.discard(name)
        about = looked.about
        steps = {step.id: step for step in looked.plan.steps}
        for id in about.keys - steps.keys():
            self._done(id)
        for step in looked.plan.steps:
            self._judge(step, looked, steps)
            if step.id in about.keys and step.verb in (Verb.NOOP, Verb.HOLD):
                self._settled(step, looked.held.get(step.id))
        self._tell_leftovers(looked)
        for steps_of in islands(looked.plan):
            self._begin_island(looked, steps_of)
        if looked.plan.blocker is not None and about.everything:
            self.journal.tell("DeletionGuard", looked.plan.blocker.summary, warning=True)
        self._send_parked()

    def _tell_leftovers(self, looked: Looked) -> None:
        """What would be pruned and is held: each said once, and forgotten where a look at all finds it so no more."""
        about, known = looked.about, self._leftovers
        held = {(id, why.reason) for id, why in looked.held.items() if id not in about.wanted.desired}
        for id, reason in sorted(held - known, key=str):
            self.journal.tell(reason, f"no longer declared: {looked.held[id].message}", id, warning=True)
        self._leftovers = held if about.everything else held | known

    def _judge(self, step: Step, looked: Looked, steps: Mapping[ResourceId, Step]) -> None:
        want, world, held = looked.about.wanted.desired.get(step.id), looked.world, looked.held
        if self.wanted is None or step.id not in self.wanted.desired or step.id in self._working_elsewhere(step):
            return
        seen, snapshot = world.find(step.backend, step.id), world.snapshots.get(step.backend)
        if snapshot is not None and snapshot.problem is None:
            self.board.note(step.id, Look(snapshot.taken, seen.revision if seen is not None else ""))
        lacking: list[Condition] = []
        if want is not None and step.id.kind in ATTACHMENTS and step.verb is Verb.NOOP:
            guests = [steps[id] for id in want.needs if id in steps and id.kind in GUESTS]
            lacking = of_attachment(step.id, [(one, world.find(one.backend, one.id)) for one in guests], held)
        fresh = self.board.put(step.id, lacking or of_step(step, want, seen, held), time.time())
        for one in fresh:
            if (one.type == "Held" and one.status) or (one.type == "RestartPending" and one.status):
                self.journal.tell(one.reason, one.message, step.id, warning=one.type == "Held")
            if one.type == "Ready" and one.status:
                self.journal.tell("Ready", one.reason, step.id)
        if fresh:
            self.journal.moved()

    def _working_elsewhere(self, step: Step) -> Iterable[ResourceId]:
        return {id for ids in self._at_work for id in ids} if step.verb is not Verb.NOOP else ()

    def _settled(self, step: Step, why: Held | None) -> None:
        """Nothing is to be carried out. What the world holds up comes again; what our rules hold up does not."""
        if step.verb is Verb.NOOP:
            self._unproved.discard(step.id)
            if step.id in self._drifted:
                self._drifted.discard(step.id)
                self.meter.drift(healed=1)
            self.runs.proved(step.id)
            self._done(step.id)
            if self.wanted is not None and (want := self.wanted.desired.get(step.id)) and is_followed(want):
                self.queue.add([step.id], time.monotonic(), FOLLOW)
        elif why is None:
            self._done(step.id, ok=False)
        else:
            self._done(step.id)
            if why.again is not None:
                self.queue.add([step.id], time.monotonic(), why.again)

    def _begin_island(self, looked: Looked, steps: tuple[Step, ...]) -> None:
        ids = {step.id for step in steps}
        mine = ids & looked.about.keys
        others = (self.queue.working - looked.about.keys) & ids
        if others or self.stop.is_set() or looked.about.wanted is not self.wanted:
            for id in mine:
                self._done(id)
                if others:
                    self._behind.setdefault(min(others), set()).add(id)
                else:
                    self.queue.add([id], time.monotonic())
            return
        self.queue.claim(ids)
        island = passes.island(looked, steps)
        self._at_work.add(island.ids)
        self._note_begun(island)

        def work() -> None:
            try:
                outcomes = passes.carry_out(island, self._progress, self._parallel, self.stop)
            except BaseException as error:  # noqa: BLE001  a bug of ours: told, and tried again later
                failure = error
                self.inbox.put(lambda: self._not_carried_out(island, failure))
            else:
                self.inbox.put(lambda: self._carried_out(island, outcomes))

        self._pool.submit(work)

    def _note_begun(self, island: Island) -> None:
        now = time.monotonic()
        for step in island.plan.work:
            want = island.about.wanted.desired.get(step.id)
            seen = island.world.find(step.backend, step.id)
            if want is not None and is_drift(want, seen) and step.changes:
                self.meter.drift(found=1)
                self._drifted.add(step.id)
            if want is not None and has_ended(want, seen):
                self.restarts.started(step.id, now)
                count = self.restarts.count(step.id, now)
                loop = self.restarts.in_loop(step.id, now)
                words = "it has ended, and is started again" + (f" ({count} times lately)" if count > 1 else "")
                self.journal.tell("CrashLoop" if loop else "Restarting", words, step.id, warning=True)
            else:
                self.journal.tell("Step", f"{step.verb.value}: {step.reason}", step.id)

    def _progress(self, id: ResourceId, state: str, message: str) -> None:
        if state == "progress":
            self.inbox.put(lambda: self.journal.tell("Progress", message, id))

    def _not_carried_out(self, island: Island, error: BaseException) -> None:
        self._at_work.discard(island.ids)
        self.broken("execution", error)
        for id in island.ids:
            self._done(id, ok=False)

    def _carried_out(self, island: Island, outcomes: list[Outcome]) -> None:
        self._at_work.discard(island.ids)
        self.runs.carried_out(island, outcomes)
        for outcome in outcomes:
            id = outcome.step.id
            self.meter.step(outcome.step.verb.value, outcome.result.value)
            if outcome.result is Result.APPLIED:
                self.journal.tell("Applied", f"{outcome.step.verb.value}, {outcome.elapsed:.2f} s", id)
                # Accepted is not converged: looked at again at once; when that goes on, less and less often.
                self._done(id, ok=False, pause=None if id in self._unproved else 0.0)
                self._unproved.add(id)
                continue
            if self.wanted is not None and id in self.wanted.desired:
                self.board.put(id, of_outcome(outcome), time.time())
            words = str(outcome.problem.summary) if outcome.problem else outcome.result.value
            self.journal.tell(outcome.result.value.capitalize(), words, id, warning=True)
            if outcome.bug is not None:
                self.broken(str(id), outcome.bug)
            self._done(id, ok=False)

    def _done(self, id: ResourceId, ok: bool = True, pause: float | None = None) -> None:
        now = time.monotonic()
        self.queue.done(id, now, ok, pause)
        self.queue.add(self._behind.pop(id, ()), now)

    def broken(self, where: str, error: BaseException) -> None:
        self.runs.report(error)
        self.inbox.put(lambda: self.journal.tell("Bug", f"{where}: {type(error).__name__}: {error}", warning=True))

    def finish(self) -> bool:
        """Begin nothing new, and give what is at work the time to end; whether it did."""
        self.journal.tell("Stopping", f"{len(self._at_work)} at work")
        deadline = time.monotonic() + _GRACE
        while (self._at_work or self._looking) and time.monotonic() < deadline:
            self.journal.flush()
            self.inbox.drain(0.5)
        left = not self._at_work
        if left:
            with suppress(RuntimeError):
                self._pool.shutdown(wait=False, cancel_futures=True)
        return left


def _result(looked: Looked) -> str:
    if looked.plan.work:
        return "changes"
    return "success" if looked.plan.in_sync else "held"
