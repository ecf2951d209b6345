"""APPLY: one step → LXD, by kind and verb. Each function may be called again after a crash at any point."""

from __future__ import annotations

from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Missing, is_missing_project
from reconciler.model import Verb
from reconciler.problems import Interrupted, Problem, Refused

__all__ = ["Task", "carry_out"]


def carry_out(task: Task) -> None:
    """Do what the step says. Raises BackendError."""
    from reconciler.backends.lxd.apply import containers, hosts, images, networks, plain

    homes = {
        "Container": containers,
        "Image": images,
        "Network": networks,
        "Profile": plain,
        "StoragePool": plain,
        "Project": plain,
        "Volume": plain,
        "Host": hosts,
    }
    home = homes.get(task.step.id.kind)
    if home is None:
        raise Refused(Problem(f"LXD has nothing like a {task.step.id.kind}", subject=str(task.step.id)))
    verbs = {
        Verb.CREATE: home.create,
        Verb.UPDATE: home.update,
        Verb.RESTART: home.restart,
        Verb.REPLACE: home.replace,
        Verb.DELETE: home.delete,
    }
    try:
        verbs[task.step.verb](task)
    except Missing as error:
        raise _explained(error, task) from error


def _explained(error: Missing, task: Task) -> Interrupted | Refused:
    """What it means that something is not there while we are at it."""
    if is_missing_project(error):
        name = task.client.address.project
        return Refused(
            Problem(f'there is no project "{name}" in this LXD', subject=str(task.step.id), hint="declare a Project")
        )
    return Interrupted(
        Problem(f"it went away meanwhile: {error.problem.summary}", subject=str(task.step.id), hint="plan again")
    )
