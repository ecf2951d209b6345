"""What apply and delete share: the question, the progress, Ctrl-C, the account, the history."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from reconciler.cli import BUG, DONE, INTERRUPTED, PROBLEM
from reconciler.cli.screen import is_terminal, show, show_json, show_problems, tell
from reconciler.model import Desired, Effect, Plan, ResourceId, Result, Run, Step, Verb
from reconciler.paths import state_dir
from reconciler.planning.waiting import limit
from reconciler.problems import Problem
from reconciler.view.plans import counted
from reconciler.view.text import has_colour, line

if TYPE_CHECKING:
    from reconciler.loop import ApplyOptions
    from reconciler.view.progress import Progress

_GRACE = 8.0  # seconds that running steps get after Ctrl-C; every step survives being cut off


def agreed(
    plan: Plan, yes: bool, approve: Mapping[str, bool], desired: Mapping[ResourceId, Desired] | None = None
) -> bool:
    """Whether the plan may be carried out: asked of a person, only where something is interrupted, and neither
    environment.yaml (``approve``) nor the resource itself (``updatePolicy``) lets it happen unattended."""
    wanted = desired or {}
    harmful = [
        step
        for step in plan.work
        if step.disruptive and not _approved(step, approve) and not _foreseen(step, wanted.get(step.id))
    ]
    if yes or not harmful:
        return True
    names = ", ".join(str(step.id) for step in harmful[:5]) + (" …" if len(harmful) > 5 else "")
    if not is_terminal():
        show_problems(
            [
                Problem(
                    f"{counted(len(harmful), 'resource')} would be stopped, restarted, replaced or deleted: {names}",
                    hint="nobody can be asked here: say --yes, or allow it in environment.yaml (approve)",
                )
            ]
        )
        return False
    tell([line(("This interrupts or deletes ", "harm"), names, ".")])
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    tell([line("Nothing was done.")])
    return False


def _approved(step: Step, approve: Mapping[str, bool]) -> bool:
    """What environment.yaml allows to happen unattended."""
    needed = {"delete"} if step.deletes else set()
    if step.effect is Effect.REPLACE:
        needed.add("replace")
    elif step.effect in (Effect.STOP, Effect.RESTART) and step.verb is not Verb.DELETE:
        needed.add("restart")
    return all(approve.get(name) for name in needed)


def _foreseen(step: Step, want: Desired | None) -> bool:
    """Whether the resource's own ``updatePolicy`` lets it happen unattended. That data goes, it never does."""
    most = limit(want) if want is not None else None
    return most is not None and not step.deletes and step.effect.severity <= most.severity


class Carrier:
    """Around the carrying out of one plan: shows progress, and turns Ctrl-C into an orderly end.

    The first Ctrl-C (or SIGTERM) begins nothing new and lets running steps end; after a grace, or at the second,
    we leave at once: the kernel lets go of the lock, and the next apply finishes what was cut off.
    """

    def __init__(self, plan: Plan, parallel: int, trigger: str) -> None:
        self._plan = plan
        self._parallel = parallel
        self._trigger = trigger
        self._running: set[ResourceId] = set()
        self._before: dict[signal.Signals, Any] = {}
        self._timer: threading.Timer | None = None
        self.stop = threading.Event()

    @property
    def options(self) -> ApplyOptions:
        """What loop.apply_plan is told."""
        from reconciler.loop import ApplyOptions

        return ApplyOptions(self._trigger, self._parallel, self._event, self.stop)

    def finish(self, done: Run, form: str) -> int:
        """Write the run down, show the account, and say how it went."""
        self._record(done)
        show_run(done, form)
        if bugs := [outcome.bug for outcome in done.outcomes if outcome.bug]:
            return _reported(bugs)
        if self.stop.is_set():
            return INTERRUPTED
        return DONE if done.converged else PROBLEM

    def _record(self, done: Run) -> None:
        """Into the history; that it cannot be written takes nothing back from what was done."""
        import sqlite3

        from reconciler.record import History

        if not done.plan.work:
            return
        try:
            history = History(state_dir())
            history.add(done)
            history.close()
        except (sqlite3.Error, OSError) as error:
            show_problems([Problem(f"the run could not be written to the history: {error}")])

    def _event(self, id: ResourceId, state: str, message: str) -> None:
        if state == "started":
            self._running.add(id)
        elif state != "progress":
            self._running.discard(id)
        self._progress.event(id, state, message)

    def __enter__(self) -> Carrier:
        self._progress = _progress(self._plan)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._interrupted)
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._timer:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupted(self, number: int, _frame: FrameType | None) -> None:
        if self.stop.is_set():
            self._leave()
        self.stop.set()
        os.write(2, b"interrupted: beginning nothing new; again to leave at once\n")
        self._timer = threading.Timer(_GRACE, self._leave)
        self._timer.daemon = True
        self._timer.start()

    def _leave(self) -> None:
        names = ", ".join(str(id) for id in sorted(self._running)) or "nothing"
        os.write(2, f"\ninterrupted; cut off: {names}. The next apply finishes it.\n".encode())
        os._exit(INTERRUPTED)


def _progress(plan: Plan) -> Progress:
    from reconciler.view.progress import progress

    return progress(plan, sys.stderr, has_colour(sys.stderr, dict(os.environ)))


def _reported(bugs: list[BaseException]) -> int:
    """The account has been given; what of it is our own mistake gets its report."""
    from reconciler.cli.report import report

    for bug in bugs:
        sys.stderr.write(report(bug, sys.argv[1:]))
    return BUG


def show_run(done: Run, form: str) -> None:
    """The account: to stdout; trouble to stderr as well when stdout is for a program."""
    if form == "json":
        from reconciler.view.documents import run_document

        show_json(run_document(done))
    elif form == "name":
        show(line(str(outcome.step.id)) for outcome in done.outcomes if outcome.result is Result.APPLIED)
    else:
        from reconciler.view.outcomes import run_lines

        show(run_lines(done))
