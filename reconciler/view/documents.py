"""VIEW: plans, runs and resources as JSON-ready data, in exactly the form that the command line promises to scripts."""

from __future__ import annotations

import time
from typing import Any

from reconciler.model import Change, Condition, Observed, Outcome, Plan, Run, Step
from reconciler.problems import Problem
from reconciler.view.fields import masked

Document = dict[str, Any]
RESTART_PENDING = "RestartPending"
"""The condition of a guest for which something waits: true, and no reason to worry."""
SYNCED, HELD = "Synced", "Held"
"""What a watch says: whether it is as declared; whether something keeps it from being made so."""
SHARE_OWNERS = "ShareOwners"
"""Whether those whom the files of its shares belong to are known in the guest. They can be read either way."""
_APART = (RESTART_PENDING, SYNCED, HELD, SHARE_OWNERS)
"""What says nothing of how well a resource does its work."""


def plan_document(plan: Plan) -> Document:
    """``plan -o json``."""
    document: Document = {
        "environment": plan.environment,
        "applyable": plan.applyable,
        "complete": plan.complete,
        "summary": plan.summary(),
        "steps": [step_document(step) for step in plan.steps],
    }
    if plan.notes:
        document["notes"] = list(plan.notes)
    if plan.blocker:
        document["blocker"] = problem_document(plan.blocker)
    return document


def step_document(step: Step) -> Document:
    """One step of a plan."""
    document: Document = {
        "id": str(step.id),
        "verb": step.verb.value,
        "effect": step.effect.value,
        "reason": step.reason,
        "changes": [change_document(change) for change in step.changes],
        "waiting": [change_document(change) for change in step.waiting],
        "after": [str(id) for id in step.after],
    }
    if step.notes:
        document["notes"] = list(step.notes)
    return document


def change_document(change: Change) -> Document:
    """One field that differs; secrets as digests. destroys: data goes with it."""
    return {
        "op": change.op,
        "path": list(change.path),
        "old": masked(change.path, change.old),
        "new": masked(change.path, change.new),
        "effect": change.effect.value,
        "destroys": change.destroys,
        "note": change.note,
    }


def run_document(run: Run) -> Document:
    """``apply -o json``."""
    return {
        "environment": run.plan.environment,
        "converged": run.converged,
        "outcomes": [outcome_document(outcome) for outcome in run.outcomes],
    }


def outcome_document(outcome: Outcome) -> Document:
    """How one step ended; elapsed in seconds."""
    document: Document = {
        "id": str(outcome.step.id),
        "verb": outcome.step.verb.value,
        "result": outcome.result.value,
        "elapsed": round(outcome.elapsed, 3),
    }
    if outcome.problem:
        document["problem"] = problem_document(outcome.problem)
    return document


def problem_document(problem: Problem) -> Document:
    """A problem, its empty parts left out."""
    document: Document = {"summary": problem.summary}
    if problem.mark:
        document["mark"] = str(problem.mark)
    for name in ("subject", "detail", "hint"):
        if value := getattr(problem, name):
            document[name] = value
    return document


def resource_document(seen: Observed, conditions: tuple[Condition, ...] = (), looked: str | None = None) -> Document:
    """One line of ``get -o json``. ready None: it has no readiness, or nobody knows;
    looked: when a watch looked at it last, where one runs."""
    document: Document = {
        "id": str(seen.id),
        "host": host_of(seen),
        "power": seen.power.value if seen.power else None,
        "ready": is_ready(conditions),
        "owned": seen.owned,
        "environment": seen.environment,
        "spec": masked((), seen.spec),
        "conditions": [condition_document(condition) for condition in conditions],
    }
    return document if looked is None else {**document, "lookedAt": looked}


def condition_document(condition: Condition) -> Document:
    """One fact, true, false or not known (null)."""
    document: Document = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
    }
    return document if condition.since is None else {**document, "since": moment(condition.since)}


def moment(at: float) -> str:
    """UTC, as in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def host_of(seen: Observed) -> str:
    """The host's name: ``local`` for this machine's LXD and QEMU alike."""
    return seen.backend.partition("/")[2] or "local"


def is_ready(conditions: tuple[Condition, ...]) -> bool | None:
    """What the conditions say together: one false is false, one unknown is unknown. That something waits for a
    restart, is not as declared, or shows files as nobody's, says nothing about it."""
    states = [condition.status for condition in conditions if condition.type not in _APART]
    if not states:
        return None
    if False in states:
        return False
    return None if None in states else True
