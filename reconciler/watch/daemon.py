"""WATCH, the one that decides: a single thread that takes in what changed and says what is to be looked at, and when.

Nothing here reads a backend: that is ``work``, done by workers whose answers come back as messages. The environment's
lock is held while anything is done, and given away when somebody waits for it.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.model import ResourceId
from reconciler.paths import private_dir, write_private
from reconciler.preparation import Wanted
from reconciler.problems import Problem
from reconciler.watch import passes
from reconciler.watch.inbox import Inbox
from reconciler.watch.journal import Journal
from reconciler.watch.meter import Meter
from reconciler.watch.naming import Keep, NamesKept, Naming
from reconciler.watch.places import Opener, Places
from reconciler.watch.runs import Runs
from reconciler.watch.source import Source, settings
from reconciler.watch.turn import Turn
from reconciler.watch.unattended import Rules
from reconciler.watch.work import Work

RESYNC = 600.0
"""Seconds between two looks at everything, give or take a tenth."""


_LAST_NAMES = 5.0
"""Seconds that a last look for names gets at the end."""
_MOMENT = 1.0
"""Seconds that nothing is to be done for, so that there is time for what can wait."""
_MANY = 500
"""As many new resources are worth to be laid by."""


@dataclass(frozen=True, slots=True)
class Options:
    """resync: seconds; parallel: steps at once in one group; observe: only look, and report;
    on_turn: called every round; most: seconds that a round may take;
    on_begun: called once, when the first look has begun: for what nothing waits for until then;
    names: whether those of guests are kept, whatever the environment says; keep: does it."""

    resync: float = RESYNC
    parallel: int = 8
    observe: bool = False
    on_turn: Callable[[], None] = lambda: None
    most: float = 5.0
    on_begun: Callable[[], None] = lambda: None
    names: bool = False
    keep: Keep | None = None


@dataclass(slots=True)
class Status:
    """What is true right now. suspended: why nothing is carried out, empty when it is; times: since the epoch;
    names: what became of the last look at those of guests, and when that was (named)."""

    started: float = field(default_factory=time.time)
    suspended: str = ""
    yields_to: str = ""
    last_resync: float = 0.0
    problems: tuple[Problem, ...] = ()
    names: NamesKept | None = None
    named: float = 0.0


class Daemon:
    """Goes on until ``work.stop`` is set."""

    def __init__(
        self, source: Source, opener: Opener, state: Path, options: Options, inbox: Inbox, journal: Journal, runs: Runs
    ) -> None:
        self.source, self.options, self.inbox, self.journal, self.runs = source, options, inbox, journal, runs
        self.status, self.meter = Status(), Meter()
        self.work = Work(inbox, journal, runs, self.meter, self._rules, options.parallel)
        self.meter.gauge("workqueue_depth", "Resources that wait to be looked at.", lambda: self.work.queue.depth)
        self._state = state
        self._turn = Turn(state)
        self._places = Places(opener, self._told, self.work.broken)
        self._naming = Naming(options.keep, self._tell_named, self._naming_broken) if options.keep is not None else None
        self._heard = 0
        self._everything = False
        self._resync_at = 0.0
        self._read_again = True
        self._begun = self._laid_by = False
        self._told_proved: Wanted | None = None

    @property
    def wanted(self) -> Wanted | None:
        """The last good set; None until there was one."""
        return self.work.wanted

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Until told to stop; whether everything at work had come to its end by then."""
        gc.disable()  # until the first round has made all that stays
        try:
            while not self.work.stop.is_set():
                self.turn_once()
            return self.work.finish()
        finally:
            gc.enable()
            self.journal.flush()
            if self._naming is not None:
                self._naming.end(_LAST_NAMES)
            self._turn.end()
            if not self.work.busy:
                self._places.close()

    def turn_once(self) -> None:
        """One round: take in what is due, begin what can be begun, wait for what comes next."""
        self.options.on_turn()
        now = time.monotonic()
        due = self.wanted is not None and now >= self._resync_at
        self._read_again = self._read_again or due
        self._read()
        now = time.monotonic()  # what was read is due already
        if self.wanted is not None and now >= self._resync_at:
            self.resync(now)
        waits = self._begin(now)
        self._note_proved()
        self.journal.flush()
        self._settle(now)
        self._follow_names()
        self.journal.flush()
        now = time.monotonic()
        self.inbox.drain(min(self.options.most, waits - now, self.source.due() - now))

    def _settle(self, now: float) -> None:
        """What can wait until a look has begun, and is done while backends think about their answers."""
        if self.wanted is not None and not self.work.looking and self._places.awaited(now) is not None:
            return
        if not self._begun:
            self._begun = True
            self.options.on_begun()
        if not self._laid_by and not (gc.isenabled() and self._is_waited_for(now)):
            self._laid_by = True
            _lay_by()

    def _is_waited_for(self, now: float) -> bool:
        """Whether somebody would have to wait for what takes tens of milliseconds."""
        due = self.work.queue.next_due()
        return self.work.busy or (due is not None and due < now + _MOMENT)

    def resync(self, now: float, keys: Collection[ResourceId] = ()) -> None:
        """Look at everything again, or at these, at once; nobody has to wait for a pause."""
        if self.wanted is None:
            return
        self.work.queue.hurry(keys, now)
        if not keys:
            self.work.queue.add(self.wanted.desired, now)
            self._everything = True
            self._resync_at = now + self.options.resync * (0.9 + 0.2 * random.random())  # noqa: S311  no secret
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
        readings = self.source.readings
        if self.source.refresh(force):
            self._tell_source()
        self._laid_by = self._laid_by and self.source.readings == readings
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
        before, first = self.wanted, self.wanted is None
        moved = self.source.moved(before) if before is not None else wanted.desired.keys()
        left = {id for id in moved if id in wanted.desired}
        others = before is None or settings(before) != settings(wanted)
        if first:
            self._turn.be_the_only_one(wanted.environment)
            self.journal.environment = wanted.environment
            self.status.suspended = self._load_suspended(wanted.environment)
        gone = len(left) < len(moved) or self.work.leaves_some
        goes = wanted.prune and gone  # what is left behind is only seen, and counted, among all that there is
        if others or goes or not self._places.fits(wanted, moved):
            self._resync_at = 0.0
        self.work.want(wanted, moved)
        self._laid_by = self._laid_by and len(moved) <= _MANY
        self.work.queue.hurry(passes.with_users(left, self.work.users), time.monotonic())
        words = "read" if first else f"{len(moved)} differ from before"
        self.journal.tell("Read", f"{wanted.environment}: {len(wanted.desired)} resources, {words}")

    def _note_proved(self) -> None:
        """Once everything that is wanted was found so, whoever it came from is told."""
        if self.wanted is not None and self._told_proved is not self.wanted and self.work.in_sync():
            self._told_proved = self.wanted
            self.source.proved(self.wanted)
            self.journal.tell("InSync", "everything is as declared")

    # -- beginning --------------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> float:
        """Begin what is due and may be; when something will be (monotonic)."""
        if self.wanted is None:
            return self.source.due()
        if not self._places.fits(self.wanted):
            if self.work.busy:
                return now + 60.0  # a message comes when the last one ends
            self._places.open(self.wanted)
            self.work.backends = self._places.backends
        if (ears := self._places.awaited(now)) is not None:
            return ears
        due = self.work.queue.next_due()
        if due is None or due > now:
            if not self.work.busy:
                self._turn.release()
            return min(self._resync_at, due or self._resync_at)
        may = self._turn.take(self.wanted.environment, now, self.work.busy)
        self._note_turn()
        if not may:
            return self._turn.again
        if self._everything and self.work.looking:
            return now + 60.0  # a message comes when those looks have ended
        everything, self._everything = self._everything, False
        self.work.look(now, everything)
        return self.work.queue.next_due() or self._resync_at

    def _note_turn(self) -> None:
        before, self.status.yields_to = self.status.yields_to, self._turn.holder
        if before.partition(",")[0] == self._turn.holder.partition(",")[0]:
            return  # the same process, or still nobody
        if self._turn.holder:
            self.journal.tell("Yielding", f"another command is at work: {self._turn.holder}")
        else:
            self.resync(time.monotonic())  # whatever it did, we have not seen all of it

    # -- names ------------------------------------------------------------------------------------------------------

    def _follow_names(self) -> None:
        """Whatever happened may have given a guest another address."""
        if self._naming is None:
            return
        wanted = self.wanted
        asked = wanted is not None and (self.options.names or wanted.names) and not self.may_act()
        news, self._heard = self._heard != self.journal.newest, self.journal.newest
        self._naming.follow(wanted if asked else None, news)

    def _tell_named(self, kept: NamesKept) -> None:
        self.inbox.put(lambda: self._named(kept))

    def _naming_broken(self, error: BaseException) -> None:
        self.work.broken("names", error)

    def _named(self, kept: NamesKept) -> None:
        before, self.status.names, self.status.named = self.status.names, kept, time.time()
        if kept.changed:
            self.journal.tell("Named", f"the names of guests are up to date in {kept.place}")
        if kept.problems and (before is None or before.problems != kept.problems):
            for problem in kept.problems:
                self.journal.tell("NotNamed", str(problem), warning=True)
        self._heard = max(self._heard, self.journal.newest)  # our own words are no news

    # -- what may be done -------------------------------------------------------------------------------------------

    def may_act(self) -> str:
        """Why nothing is carried out; empty when it is."""
        if self.options.observe:
            return "observe only"
        return self.status.suspended or self.source.hold()

    def suspend(self, why: str) -> None:
        """Carry nothing out until ``resume``, whoever starts us again meanwhile."""
        self.status.suspended = why
        self._save_suspended()
        self.journal.tell("Suspended", why)
        self.resync(time.monotonic())

    def resume(self) -> None:
        """Carry out again."""
        self.status.suspended = ""
        self._save_suspended()
        self.source.resume()
        self.journal.tell("Resumed", "what is declared is made so again")
        self.read_again()

    def rolled_back(self, revision: str) -> None:
        """The source wants an earlier commit from now on, until ``resume``."""
        self.journal.tell("RolledBack", revision)
        self.read_again()

    def _rules(self, wanted: Wanted) -> Rules:
        why = self.may_act()
        pause = self.work.restarts.pause
        return Rules(wanted.approve, wanted.drift, not why, why, lambda id: pause(id, time.monotonic()))

    def _load_suspended(self, environment: str) -> str:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(self._suspended(environment).read_bytes())["why"])
        return ""

    def _save_suspended(self) -> None:
        if self.wanted is None:
            return
        path = self._suspended(self.wanted.environment)
        if self.status.suspended:
            private_dir(path.parent)
            write_private(path, json.dumps({"why": self.status.suspended, "at": time.time()}).encode())
        else:
            path.unlink(missing_ok=True)

    def _suspended(self, environment: str) -> Path:
        return self._state / "watch" / f"{environment}.suspended"

    # -- what comes from outside ------------------------------------------------------------------------------------

    def _told(self, backend: str, ids: Collection[ResourceId] | None) -> None:
        self.inbox.put(lambda: self._wake(backend, ids))

    def _wake(self, backend: str, ids: Collection[ResourceId] | None) -> None:
        self._heard = -1
        if self._places.listens(backend) and ids is None:
            return  # no look has begun yet
        if self.wanted is not None:
            ids = None if ids is None else [id for id in ids if not self.work.is_futile(id)]
            self.work.queue.add(passes.told(backend, ids, self.wanted.desired), time.monotonic())


def _lay_by() -> None:
    """Tens of thousands of objects stay from now on: whoever looks for garbage need not go through all of them again
    and again, in the middle of what somebody waits for."""
    gc.unfreeze()
    if gc.isenabled():
        gc.collect()
    gc.freeze()
    gc.enable()
