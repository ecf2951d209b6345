"""EXECUTE: Plan → one Outcome a step, always. In parallel along the DAG; siblings of a failure go on.

Backends' steps are idempotent, so a step that was interrupted is simply tried again; a clear refusal is not.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from reconciler.model import Desired, Observed, Outcome, Plan, ResourceId, Result, Step, Verb, World
from reconciler.ports import AT_WORK, Backend
from reconciler.problems import BackendError, Interrupted, Problem, Unreachable

OnEvent = Callable[[ResourceId, str, str], None]
"""(resource, state, message): state is ``started``, ``progress`` or a Result's value."""

_TRIES = 3
_PAUSE = 0.3  # seconds before the second try; doubles


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that executing one plan needs. parallel: steps at work at once (one that only watches its guest
    is not); stop: set when nothing new shall begin."""

    plan: Plan
    desired: Mapping[ResourceId, Desired]
    world: World
    backends: Mapping[str, Backend]
    on_event: OnEvent = lambda _id, _state, _message: None
    parallel: int = 8
    stop: threading.Event | None = None


def execute(job: Job) -> list[Outcome]:
    """Carry the plan out; the outcomes stand in the plan's order."""
    outcomes = {step.id: _idle(step) for step in job.plan.steps if step.verb in (Verb.NOOP, Verb.HOLD)}
    waiting = {step.id: step for step in job.plan.work}
    running: dict[Future[Outcome], Step] = {}
    places = _Places(max(1, job.parallel))
    with ThreadPoolExecutor(max_workers=places.count * 2, thread_name_prefix="step") as pool:
        while waiting or running:
            for step in _startable(job, waiting, outcomes):
                running[pool.submit(_in_turn, job, places, step)] = waiting.pop(step.id)
            if not running:
                outcomes.update({step.id: _blocked(step, outcomes, job) for step in waiting.values()})
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                step = running.pop(future)
                bug = future.exception()
                outcomes[step.id] = future.result() if bug is None else _broken(job, step, bug)
    return [outcomes[step.id] for step in job.plan.steps]


def _startable(job: Job, waiting: dict[ResourceId, Step], outcomes: dict[ResourceId, Outcome]) -> list[Step]:
    """The steps whose needs are met. Those whose need failed are settled as blocked on the way."""
    ready: list[Step] = []
    settled = True
    while settled:
        settled = False
        for step in list(waiting.values()):
            before = [outcomes[id] for id in step.after if id in outcomes]
            if any(outcome.result in (Result.FAILED, Result.BLOCKED) for outcome in before):
                outcomes[step.id] = _blocked(waiting.pop(step.id), outcomes, job)
                settled = True
    if job.stop is not None and job.stop.is_set():
        return []
    for step in waiting.values():
        if all(id in outcomes for id in step.after):
            ready.append(step)
    return ready


class _Places:
    """The places of those at work: so many steps at once, and one that only watches gives its place to the next."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.Semaphore(count)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a place, and have it until the end or until ``ports.only_watching`` is said."""
        self._free.acquire()
        with contextlib.ExitStack() as held:
            held.callback(self._free.release)
            before = AT_WORK.set(held.close)
            try:
                yield
            finally:
                AT_WORK.reset(before)


def _in_turn(job: Job, places: _Places, step: Step) -> Outcome:
    with places.one():
        if job.stop is not None and job.stop.is_set():
            return _blocked(step, {}, job)
        return _carry_out(job, step)


def _carry_out(job: Job, step: Step) -> Outcome:
    began = time.monotonic()
    job.on_event(step.id, "started", step.verb.value)
    try:
        _with_retries(job, step)
        outcome = Outcome(step, Result.APPLIED, time.monotonic() - began)
    except BackendError as error:
        unsure = isinstance(error, Interrupted)
        outcome = Outcome(step, Result.FAILED, time.monotonic() - began, error.problem, unsure=unsure)
    job.on_event(step.id, outcome.result.value, outcome.problem.summary if outcome.problem else "")
    return outcome


def _with_retries(job: Job, step: Step) -> None:
    backend = job.backends[step.backend]
    seen = _seen(job, step)
    pause = threading.Event()
    for attempt in range(1, _TRIES + 1):
        try:
            backend.apply(step, _desired(job, step), seen, lambda message: job.on_event(step.id, "progress", message))
            return
        except (Interrupted, Unreachable) as error:
            if attempt == _TRIES:
                raise
            job.on_event(step.id, "progress", f"trying again: {error.problem.summary}")
            pause.wait(_PAUSE * 2 ** (attempt - 1))


def _desired(job: Job, step: Step) -> Desired | None:
    """What the step is carried out with: what the manifests say, unless the plan leaves some of it for later."""
    return job.plan.adjusted.get(step.id) or job.desired.get(step.id)


def _seen(job: Job, step: Step) -> Observed | None:
    """What stood there when the plan was made; under its old name when it is being renamed."""
    found = job.world.find(step.backend, step.id)
    want = job.desired.get(step.id)
    if found is None and want is not None and want.renamed_from is not None:
        return job.world.find(step.backend, want.renamed_from)
    return found


def _broken(job: Job, step: Step, bug: BaseException) -> Outcome:
    """Our own mistake: the step failed like any other, its siblings go on, and the caller reports the bug."""
    problem = Problem(f"a bug in the reconciler: {type(bug).__name__}", subject=str(step.id))
    job.on_event(step.id, Result.FAILED.value, problem.summary)
    return Outcome(step, Result.FAILED, problem=problem, bug=bug)


def _idle(step: Step) -> Outcome:
    if step.verb is Verb.NOOP:
        return Outcome(step, Result.UNCHANGED)
    return Outcome(step, Result.HELD, problem=Problem(step.reason, subject=str(step.id)))


def _blocked(step: Step, outcomes: Mapping[ResourceId, Outcome], job: Job) -> Outcome:
    culprit = next((id for id in step.after if id in outcomes and outcomes[id].result is not Result.APPLIED), None)
    why = f"{culprit} did not end well" if culprit else "we were asked to stop"
    job.on_event(step.id, Result.BLOCKED.value, why)
    return Outcome(step, Result.BLOCKED, problem=Problem(why, subject=str(step.id)))
