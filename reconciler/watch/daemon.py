"""WATCH, the one that decides: a single thread that takes in what changed and says what is looked at and carried out.

Nothing here reads a backend: looking and carrying out is done by workers (``passes``), whose answers come back as
messages. The environment's lock is held while anything is done, and given away when somebody waits for it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.model import Desired, Outcome, ResourceId, Result, Step, Verb, World
from reconciler.preparation import Wanted
from reconciler.problems import Problem
from reconciler.queue import WorkQueue
from reconciler.watch import passes
from reconciler.watch.conditions import Board, of_outcome, of_step
from reconciler.watch.inbox import Inbox
from reconciler.watch.journal import Journal
from reconciler.watch.passes import Island, Looked, Pass
from reconciler.watch.places import Opener, Places
from reconciler.watch.restarts import Restarts
from reconciler.watch.runs import Runs
from reconciler.watch.source import Source, changed
from reconciler.watch.turn import Turn
from reconciler.watch.unattended import Held, Rules, has_ended, islands

RESYNC = 600.0
"""Seconds between two looks at everything, give or take a tenth."""
_GRACE = 20.0
"""Seconds that steps at work get when we are to end."""
_LOOKS = 16


@dataclass(frozen=True, slots=True)
class Options:
    """resync: seconds; parallel: steps at once in one group; observe: only look, and report; drift: see Rules."""

    resync: float = RESYNC
    parallel: int = 8
    observe: bool = False


@dataclass(slots=True)
class Status:
    """What is true right now, for whoever asks. suspended: why nothing is carried out; empty when it is."""

    started: float = field(default_factory=time.time)
    suspended: str = ""
    yields_to: str = ""
    last_resync: float = 0.0
    problems: tuple[Problem, ...] = ()


class Daemon:
    """Goes on until ``stop`` is set."""

    def __init__(
        self,
        source: Source,
        opener: Opener,
        state: Path,
        options: Options,
        inbox: Inbox,
        journal: Journal,
        runs: Runs,
    ) -> None:
        self.source, self.options, self.inbox, self.journal, self.runs = source, options, inbox, journal, runs
        self.board, self.status = Board(), Status()
        self.queue: WorkQueue[ResourceId] = WorkQueue(chance=random.random)
        self.restarts: Restarts[ResourceId] = Restarts()
        self.wanted: Wanted | None = None
        self.stop = threading.Event()
        self._turn = Turn(state)
        self._places = Places(opener, self._told, self._broken)
        self._pool = ThreadPoolExecutor(_LOOKS, thread_name_prefix="watch")
        self._looking: set[str] = set()
        self._parked: dict[str, set[ResourceId]] = {}
        self._behind: dict[ResourceId, set[ResourceId]] = {}
        self._at_work: set[frozenset[ResourceId]] = set()
        self._everything = False
        self._unproved: set[ResourceId] = set()
        self._leftovers: set[tuple[ResourceId, str]] = set()
        self._resync_at = 0.0
        self._read_again = True

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Until told to stop; whether everything at work had come to its end by then."""
        try:
            while not self.stop.is_set():
                self.turn_once()
            return self._finish()
        finally:
            self._turn.release()
            if not self._at_work and not self._looking:
                self._places.close()

    def turn_once(self, most: float = 5.0) -> None:
        """One round: take in what is due, begin what can be begun, wait for what comes next."""
        self._read()
        now = time.monotonic()
        if self.wanted is not None and now >= self._resync_at:
            self.resync(now)
        waits = self._begin(now)
        self.inbox.drain(min(most, max(0.0, waits - time.monotonic()), max(0.0, self.source.due() - time.monotonic())))

    def resync(self, now: float, keys: Collection[ResourceId] = ()) -> None:
        """Look at everything again, or at these, at once; nobody has to wait for a pause."""
        if self.wanted is None:
            return
        self.queue.hurry(keys, now)
        if not keys:
            self.queue.add(self.wanted.desired, now)
            self._everything = True
            self._resync_at = now + self.options.resync * (0.9 + 0.2 * random.random())  # noqa: S311  no secret: not all at once
            self.status.last_resync = time.time()

    def read_again(self) -> None:
        """Read what is wanted again, and look at everything."""
        self._read_again = True
        self._resync_at = 0.0

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        force, self._read_again = self._read_again, False
        if not (force or time.monotonic() >= self.source.due()):
            return
        if self.source.refresh(force):
            self._tell_source()
        if self.source.wanted is not None and self.source.wanted is not self.wanted:
            self._take(self.source.wanted)

    def _tell_source(self) -> None:
        problems = self.source.problems
        if problems != self.status.problems:
            for problem in problems:
                self.journal.tell("NotUsed", str(problem), warning=True)
            if problems and self.wanted is not None:
                self.journal.tell("LastGoodKept", "the last good set stays", warning=True)
            if not problems and self.status.problems:
                self.journal.tell("UsedAgain", "what is wanted is right again")
        self.status.problems = problems

    def _take(self, wanted: Wanted) -> None:
        before = self.wanted.desired if self.wanted else {}
        moved = changed(before, wanted.desired)
        first, self.wanted = self.wanted is None, wanted
        gone = [id for id in moved if id not in wanted.desired]
        self.queue.forget(gone)
        self.board.keep_only(wanted.desired)
        for id in moved:
            self.restarts.forget(id)
        now = time.monotonic()
        if first or gone or not self._places.fits(wanted):
            self._resync_at = 0.0
        self.queue.hurry(passes.with_users([id for id in moved if id in wanted.desired], wanted.desired), now)
        words = (
            f"{len(wanted.desired)} resources" if first else f"{len(moved)} of {len(wanted.desired)} resources differ"
        )
        self.journal.tell("Read", f"{wanted.environment}: {words}")

    # -- beginning --------------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> float:
        """Begin what is due and may be; when something will be (monotonic)."""
        busy = bool(self._looking or self._at_work)
        if self.wanted is None:
            return self.source.due()
        if not self._places.fits(self.wanted):
            if busy:
                return now + 60.0  # a message comes when the last one ends
            self._places.open(self.wanted)
        due = self.queue.next_due()
        if due is None or due > now:
            if not busy:
                self._turn.release()
            return min(self._resync_at, due or self._resync_at)
        if not self._turn.take(self.wanted.environment, now, busy):
            self._note_turn()
            return self._turn.again
        self._note_turn()
        if self._everything and self._looking:
            return now + 60.0  # a message comes when those looks have ended
        self._look(now)
        return self.queue.next_due() or self._resync_at

    def _note_turn(self) -> None:
        if self._turn.holder != self.status.yields_to:
            self.status.yields_to = self._turn.holder
            if self._turn.holder:
                self.journal.tell("Yielding", f"another command is at work: {self._turn.holder}")
            else:
                self.resync(time.monotonic())  # whatever it did, we have not seen all of it

    def _look(self, now: float) -> None:
        assert self.wanted is not None
        taken = self.queue.take(now)
        gone = [id for id in taken if id not in self.wanted.desired]
        for id in gone:
            self.queue.done(id, now)
        keys = {id for id in taken if id in self.wanted.desired}
        if self._everything:
            self._everything = False
            self._send(Pass(self.wanted, frozenset(keys), True, self._places.backends), "*")
            return
        for id in keys:
            self._parked.setdefault(self.wanted.desired[id].backend, set()).add(id)
        self._send_parked()

    def _send_parked(self) -> None:
        """One look at a time into each backend; what comes meanwhile goes into the next one."""
        assert self.wanted is not None
        for name in [name for name in self._parked if name not in self._looking]:
            keys = frozenset(self._parked.pop(name))
            self._send(Pass(self.wanted, keys, False, self._places.backends), name)

    def _send(self, about: Pass, name: str) -> None:
        self._looking.add(name)
        rules = self._rules(about.wanted)

        def work() -> None:
            try:
                looked = passes.look(about, rules)
            except BaseException as error:  # noqa: BLE001  a bug of ours: told, and tried again later
                failure = error
                self.inbox.put(lambda: self._not_looked(about, name, failure))
            else:
                self.inbox.put(lambda: self._looked(looked, name))

        self._pool.submit(work)

    def _rules(self, wanted: Wanted) -> Rules:
        act = not (self.status.suspended or self.options.observe)
        why = self.status.suspended or "observe only"
        return Rules(wanted.approve, wanted.drift, act, why, self._pause)

    def _pause(self, id: ResourceId) -> float:
        return self.restarts.pause(id, time.monotonic())

    # -- what came back ---------------------------------------------------------------------------------------------

    def _not_looked(self, about: Pass, name: str, error: BaseException) -> None:
        self._looking.discard(name)
        self._broken(name, error)
        for id in about.keys:
            self._done(id, ok=False)
        self._send_parked()

    def _looked(self, looked: Looked, name: str) -> None:
        self._looking.discard(name)
        about, world = looked.about, looked.world
        steps = {step.id: step for step in looked.plan.steps}
        for id in about.keys - steps.keys():
            self._done(id)
        for step in looked.plan.steps:
            self._judge(step, about.wanted.desired.get(step.id), world, looked.held)
            if step.id in about.keys and step.verb in (Verb.NOOP, Verb.HOLD):
                self._settled(step, looked.held.get(step.id))
        for id, why in looked.held.items():
            if id not in about.wanted.desired and (id, why.reason) not in self._leftovers:
                self._leftovers.add((id, why.reason))
                self.journal.tell(why.reason, f"no longer declared: {why.message}", id, warning=True)
        for steps_of in islands(looked.plan):
            self._begin_island(looked, steps_of)
        if looked.plan.blocker is not None and about.everything:
            self.journal.tell("DeletionGuard", looked.plan.blocker.summary, warning=True)
        self.runs.looked(looked)
        self._send_parked()

    def _judge(self, step: Step, want: Desired | None, world: World, held: Mapping[ResourceId, Held]) -> None:
        if self.wanted is None or step.id not in self.wanted.desired or step.id in self._working_elsewhere(step):
            return
        fresh = self.board.put(step.id, of_step(step, want, world.find(step.backend, step.id), held), time.time())
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
            self.runs.proved(step.id)
            self._done(step.id)
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
                outcomes = passes.carry_out(island, self._progress, self.options.parallel, self.stop)
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
            if want is not None and has_ended(want, island.world.find(step.backend, step.id)):
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
        self._broken("execution", error)
        for id in island.ids:
            self._done(id, ok=False)

    def _carried_out(self, island: Island, outcomes: list[Outcome]) -> None:
        self._at_work.discard(island.ids)
        self.runs.carried_out(island, outcomes)
        for outcome in outcomes:
            id = outcome.step.id
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
                self._broken(str(id), outcome.bug)
            self._done(id, ok=False)

    def _done(self, id: ResourceId, ok: bool = True, pause: float | None = None) -> None:
        now = time.monotonic()
        self.queue.done(id, now, ok, pause)
        self.queue.add(self._behind.pop(id, ()), now)

    # -- what comes from outside ------------------------------------------------------------------------------------

    def _told(self, backend: str, ids: Collection[ResourceId] | None) -> None:
        self.inbox.put(lambda: self._wake(backend, ids))

    def _wake(self, backend: str, ids: Collection[ResourceId] | None) -> None:
        if self.wanted is not None:
            self.queue.add(passes.told(backend, ids, self.wanted.desired), time.monotonic())

    def _broken(self, where: str, error: BaseException) -> None:
        self.runs.broken(error)
        self.inbox.put(lambda: self.journal.tell("Bug", f"{where}: {type(error).__name__}: {error}", warning=True))

    def _finish(self) -> bool:
        """Begin nothing new, and give what is at work the time to end."""
        self.journal.tell("Stopping", f"{len(self._at_work)} at work")
        deadline = time.monotonic() + _GRACE
        while (self._at_work or self._looking) and time.monotonic() < deadline:
            self.inbox.drain(0.5)
        left = not self._at_work
        if left:
            with suppress(RuntimeError):
                self._pool.shutdown(wait=False, cancel_futures=True)
        return left
