"""VIEW: what came of a plan: one line a step, the guest's own last words where it failed, and whether it converged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from reconciler.model import Outcome, Result, Run, Verb
from reconciler.view.fields import duration
from reconciler.view.plans import AS_DECLARED, GONE, counted, summary_line
from reconciler.view.problems import problem_lines
from reconciler.view.text import Line, clean, line

_STYLES = {
    Result.APPLIED: "good",
    Result.UNCHANGED: "dim",
    Result.FAILED: "bad",
    Result.BLOCKED: "warn",
    Result.HELD: "note",
}
PAST: Mapping[Verb, str] = {
    Verb.NOOP: "unchanged",
    Verb.CREATE: "created",
    Verb.UPDATE: "updated",
    Verb.RESTART: "restarted",
    Verb.REPLACE: "replaced",
    Verb.DELETE: "deleted",
    Verb.HOLD: "held",
}


def outcome_line(outcome: Outcome) -> Line:
    """``Container/web: created in 0.4s``; what is wrong follows in lines of its own."""
    name = (f"{clean(str(outcome.step.id))}: ", "bold")
    style = _STYLES[outcome.result]
    if outcome.result is Result.APPLIED:
        return line(name, (PAST[outcome.step.verb], style), (f" in {duration(outcome.elapsed)}", "dim"))
    if outcome.result is Result.FAILED:
        after = f" after {duration(outcome.elapsed)}"
        return line(name, (f"{outcome.step.verb.value} failed", style), (after, "dim"))
    why = outcome.problem.summary if outcome.problem else outcome.step.reason
    return line(name, (outcome.result.value, style), (f": {clean(why)}", "dim"))


def run_lines(run: Run) -> Iterator[Line]:
    """The account of a run: first what did not go well, then the numbers."""
    for outcome in run.outcomes:
        if outcome.result in (Result.FAILED, Result.BLOCKED, Result.HELD):
            yield from trouble_lines(outcome)
    if run.plan.in_sync:
        yield summary_line(run.plan, GONE if run.trigger == "delete" else AS_DECLARED)
        return
    for step in run.plan.steps:
        for change in step.waiting:
            yield line((clean(f"{step.id}: "), "bold"), clean(f"{change.field} {change.note}"))
    counts = Counter(_word(outcome) for outcome in run.outcomes)
    numbers = ", ".join(f"{count} {word}" for word, count in counts.items())
    if run.converged:
        yield line(("Converged", "good"), f": {numbers or 'nothing was asked for'}.")
    else:
        yield line(("Not converged", "bad"), f": {numbers or counted(0, 'step')}.")


def trouble_lines(outcome: Outcome) -> Iterator[Line]:
    """Why a step did not end well: what was not even tried in one line, the way out below."""
    yield outcome_line(outcome)
    if outcome.problem:
        said = problem_lines([outcome.problem], indent=2)
        yield from said if outcome.result is Result.FAILED else list(said)[1:]


def _word(outcome: Outcome) -> str:
    return PAST[outcome.step.verb] if outcome.result is Result.APPLIED else outcome.result.value
