"""APPLY for Network: managed bridges."""

from __future__ import annotations

from typing import Any

from reconciler.backends.lxd.apply import moving
from reconciler.backends.lxd.apply.editing import Raw, check_unmoved, edit, merged, remarked
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Conflicting
from reconciler.backends.lxd.marks import mark_config, read_mark
from reconciler.backends.lxd.terms import networks as terms
from reconciler.problems import Interrupted, Problem, Refused


def create(task: Task) -> None:
    """Make it; one of ours that is there already is brought to what is wanted."""
    there = task.client.find("networks", task.name, within=task.deadline)
    if there is not None and there.metadata["managed"]:
        _write(task, everything=True)
        return
    if there is not None:
        raise Refused(Problem("the host has an interface of that name", subject=str(task.step.id)))
    task.tell("creating")
    config = terms.config_of(task.spec) | mark_config(task.mark())
    body = {"name": task.name, "type": task.spec.get("type", "bridge"), "config": config}
    try:
        task.client.post(("networks",), body, task.deadline)
    except Conflicting as error:
        raise Interrupted(error.problem) from error  # it appeared just now: look again
    except Refused as error:
        raise _explained(error) from error


def update(task: Task) -> None:
    """Change the fields that the step names, and our mark; all of it live."""
    if task.renamed_from is not None:
        raise Refused(Problem("LXD renames a network only when nothing uses it", subject=str(task.step.id)))
    _write(task, everything=False)


restart = update


def replace(task: Task) -> None:
    """Delete and make anew."""
    delete(task)
    create(task)


def delete(task: Task) -> None:
    """Make it go away. LXD refuses while somebody uses it."""
    found = task.client.find("networks", task.name, within=task.deadline)
    if found is None:
        return
    task.check_ours(read_mark(found.metadata["config"] or {}, task.marked_id))
    task.tell("deleting")
    task.client.delete(("networks", task.name), task.deadline)


def _write(task: Task, everything: bool) -> None:
    """Bring it to what is wanted, with the static addresses on it out of the way."""
    raw = task.client.get("networks", task.name, within=task.deadline).metadata
    body = _body(task, raw, everything)
    if body is not None:
        with moving.aside(task, raw["config"] or {}, body["config"]):
            edit(task, ("networks", task.name), lambda raw: _body(task, raw, everything))


def _body(task: Task, raw: Raw, everything: bool) -> dict[str, Any] | None:
    """What to PUT, from a fresh reading; None when nothing would change."""
    if not raw["managed"]:
        raise Refused(Problem("an interface of the host, not a network of LXD's", subject=str(task.step.id)))
    task.check_ours(read_mark(raw["config"] or {}, task.marked_id))
    applied = task.observed.applied if task.observed else None
    check_unmoved(task.step.changes, terms.spec_of(raw, applied), terms.SEEN)
    wanted = terms.config_of(task.spec)
    keys = terms.keys_touched(task.step.changes) | (set(wanted) if everything else set())
    if everything:
        keys -= {key for key in keys if wanted.get(key) == terms.AUTOMATIC and key in raw["config"]}
    config = remarked(merged(raw["config"] or {}, wanted, keys), mark_config(task.mark()))
    if config == raw["config"]:
        return None
    return {"config": config, "description": raw["description"]}


def _explained(error: Refused) -> Refused:
    """LXD's way to say that it found no free subnet, with what to do about it."""
    summary = error.problem.summary
    if "automatically find an unused" not in summary:
        return error
    return Refused(Problem(summary, hint='name the address, such as ipv4: {address: 10.20.30.1/24}, or "none"'))
