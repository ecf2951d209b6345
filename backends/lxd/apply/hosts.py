"""APPLY for Host: nothing to do. A Host is there when it answers."""

from __future__ import annotations

from reconciler.backends.lxd.apply.task import Task


def create(task: Task) -> None:
    """See whether it answers; raises Unreachable when not."""
    task.client.get(within=task.deadline)


update = restart = replace = create


def delete(_task: Task) -> None:
    """It is not ours to end; only the manifest's line about it goes."""
