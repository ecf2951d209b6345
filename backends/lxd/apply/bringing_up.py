"""APPLY for Container, its last part: what goes into it, its power, its account and commands, and that it is ready.

The mark says how far it got, so that a later pass goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from reconciler.backends.lxd.apply import home, plugging, power
from reconciler.backends.lxd.apply.editing import Raw
from reconciler.backends.lxd.apply.guest import put_files, run_commands
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Missing
from reconciler.backends.lxd.marks import OWED, PENDING
from reconciler.backends.lxd.readiness import wait_until_ready
from reconciler.backends.lxd.terms.containers import power_of
from reconciler.model import Power, Spec
from reconciler.ports import only_watching
from reconciler.problems import GuestFailed, Problem

HOME = "home"
"""Pending, when nothing but account, time zone or locale is to be changed: no command runs because of that."""
_PATIENCE = 120.0
_MOMENT = 0.15


def risky(spec: Spec) -> bool:
    """Whether there is more to do after the instance stands than its power, which anybody can see."""
    ready = set(spec.get("ready") or ()) - {"timeout"}
    return bool(spec.get("files") or spec.get("run") or ready or any(spec.get(part) for part in home.FIELDS))


def note(task: Task, pending: str) -> None:
    task.client.patch(("instances", task.name), {"config": {PENDING: pending}}, task.deadline)


def bring_up(
    task: Task, pending: str | None, files: Collection[str] | None, now: Power | None = None, raw: Raw | None = None
) -> None:
    """Files, power, commands, readiness; then the mark says that nothing is pending.

    files: which of them, None for all; now: what it is doing, when that is known; raw: how it was just read
    """
    put_files(task, files)
    wanted = task.spec.get("power", Power.RUNNING)
    raw = None if files or files is None else raw
    if now is None:
        raw = raw or task.client.get("instances", task.name, within=task.deadline).metadata
        now = power_of(raw["status"])
    resting = wanted == Power.STOPPED or (wanted == now == Power.PAUSED and not pending)
    if not resting:
        pending = _run(task, pending, now, raw)
    if wanted == Power.PAUSED:
        power.freeze(task.client, task.name, task.deadline, task.tell)
    if pending:
        settled = {PENDING: ""} if wanted == Power.STOPPED else {PENDING: "", OWED: ""}
        task.client.patch(("instances", task.name), {"config": settled}, task.deadline)


def _run(task: Task, pending: str | None, now: Power, raw: Raw | None) -> str | None:
    """Have it running, with what belongs to that; what is pending afterwards."""
    starts = now is Power.STOPPED
    if starts and risky(task.spec):
        raw = raw or task.client.get("instances", task.name, within=task.deadline).metadata
        # What is owed to it since its creation comes first, whatever else an apply was cut off in since then.
        due = raw["config"].get(OWED) or pending or "start"
        if due not in (pending, (pending or "").partition(", ")[0]):
            pending = due
            note(task, due)
    names = set(task.spec.get("devices") or {}) if starts else set()
    folders = plugging.preflight(task, names)
    started = power.start(task.console, task.deadline, task.tell, now)
    if started and folders:
        plugging.verify(task, folders, folders)
    if (pending or "start").partition(", ")[0] != "start":
        home.set_up(task)
    if started or pending:
        _run_commands(task, pending or "", starts)
        _wait_ready(task)
    return pending


def _run_commands(task: Task, pending: str, started: bool) -> None:
    """The commands that are due; how many of them are done is noted on the object, so that none runs twice."""
    stage, _, progress = pending.partition(", ")
    when = {"create": ["create"], "update": ["change"]}.get(stage, [])
    if started or stage in ("create", "start"):
        when.append("start")
    done = int(progress.split()[0]) if progress else 0
    run_commands(task, when, done, lambda number: note(task, f"{stage}, {number} commands done"))


def _wait_ready(task: Task) -> None:
    """Return when it is as ``ready`` asks, or at least still up a moment after its start; else GuestFailed."""
    ready = task.spec.get("ready") or {}
    patience = float(ready.get("timeout", _PATIENCE))
    try:
        if not risky({"ready": ready}):
            only_watching()
            time.sleep(_MOMENT)  # an init that exits does so at once; there is nothing else to wait on
        else:
            task.tell("waiting until it is ready")
        summary = wait_until_ready(task.console, ready, task.deadline.within(patience))[-1]
    except Missing:
        raise GuestFailed(Problem("it went down and, being ephemeral, is gone", subject=str(task.step.id))) from None
    if summary.status:
        return
    what = "it went down right after its start" if summary.status is None else f"not ready: {summary.message}"
    detail = task.console.last_words()
    raise GuestFailed(Problem(what, subject=str(task.step.id), detail=detail or None, hint=power.advice(task.console)))
