"""APPLY for Profile, StoragePool, Project and Volume: objects with a config, and little else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.backends.lxd.apply.editing import Raw, check_unmoved, devices_after, edit, merged, remarked
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Conflicting
from reconciler.backends.lxd.marks import mark_config, read_mark
from reconciler.backends.lxd.terms import plain as terms
from reconciler.model import Spec
from reconciler.problems import Interrupted, Problem, Refused


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between these kinds.

    folder:  where they are listed; config: the LXD config a spec states; spec: the way back
    created: what else the body of a creation holds
    fields:  what a PUT sends back besides config
    says_conflict: whether LXD says so of one that is there already: then it need not be looked for first
    """

    folder: Callable[[Task], tuple[str, ...]]
    config: Callable[[Spec], Mapping[str, str]]
    spec: Callable[[Mapping[str, Any], Spec | None], Spec]
    created: Callable[[Spec], Mapping[str, Any]]
    fields: tuple[str, ...] = ("description",)
    says_conflict: bool = False


def _config(spec: Spec) -> Mapping[str, str]:
    return dict(spec.get("config") or {})


KINDS: Mapping[str, Kind] = {
    "Profile": Kind(
        lambda _task: ("profiles",),
        _config,
        terms.profile_spec,
        lambda spec: {"devices": spec.get("devices") or {}},
        ("description", "devices"),
    ),
    "StoragePool": Kind(
        lambda _task: ("storage-pools",), terms.pool_config, terms.pool_spec, lambda spec: {"driver": spec["driver"]}
    ),
    "Project": Kind(lambda _task: ("projects",), _config, terms.project_spec, lambda _spec: {}),
    "Volume": Kind(
        lambda task: ("storage-pools", _pool(task), "volumes", "custom"),
        terms.volume_config,
        terms.volume_spec,
        lambda _spec: {"type": "custom", "content_type": "filesystem"},
        says_conflict=True,
    ),
}


def create(task: Task) -> None:
    """Make it; one of ours that is there already is brought to what is wanted."""
    kind = KINDS[task.step.id.kind]
    if (task.observed is not None or not kind.says_conflict) and _is_there(task):
        _edit(task, everything=True)
        return
    task.tell("creating")
    config = {**kind.config(task.spec), **mark_config(task.mark())}
    described = {"description": task.spec.get("description", "")}
    body = {"name": task.name, "config": config, **described, **kind.created(task.spec)}
    try:
        task.client.post(kind.folder(task), body, task.deadline, **_target(task))
    except Conflicting as error:
        if not _is_there(task):
            raise Interrupted(error.problem) from error  # it went just now: look again
        _edit(task, everything=True)


def update(task: Task) -> None:
    """Change the fields that the step names, and our mark."""
    if task.renamed_from is not None:
        raise Refused(Problem(f"a {task.step.id.kind} is not renamed by this version", subject=str(task.step.id)))
    _edit(task, everything=False)


restart = update


def replace(task: Task) -> None:
    """Delete and make anew."""
    delete(task)
    create(task)


def delete(task: Task) -> None:
    """Make it go away. LXD refuses while somebody uses it, and says who."""
    path = _path(task)
    found = task.client.find(*path, within=task.deadline)
    if found is None:
        return
    task.check_ours(read_mark(found.metadata["config"] or {}, task.marked_id))
    if task.step.id.kind == "Volume":
        _check_snapshots(task, path)
    task.tell("deleting")
    task.client.delete(path, task.deadline)


def _edit(task: Task, everything: bool) -> None:
    kind = KINDS[task.step.id.kind]
    edit(task, _path(task), lambda raw: _body(task, kind, raw, everything))


def _body(task: Task, kind: Kind, raw: Raw, everything: bool) -> dict[str, Any] | None:
    """What to PUT, from a fresh reading; None when nothing would change."""
    task.check_ours(read_mark(raw["config"] or {}, task.marked_id))
    seen = kind.spec({**raw, "pool": task.spec.get("pool")}, None)
    check_unmoved(task.step.changes, seen, terms.SEEN)
    wanted = kind.config(task.spec)
    keys = terms.keys_touched(task.step.changes) | (set(wanted) if everything else set())
    body: dict[str, Any] = {key: raw[key] for key in kind.fields if key in raw}
    body["config"] = remarked(merged(raw["config"] or {}, wanted, keys), mark_config(task.mark()))
    if "devices" in kind.fields:
        body["devices"] = devices_after(task, raw, everything)
    if task.special("description") or "description" in task.spec:
        body["description"] = task.spec.get("description", "")
    return body if any(body[key] != raw.get(key) for key in body) else None


def _is_there(task: Task) -> bool:
    return task.client.find(*_path(task), within=task.deadline) is not None


def _path(task: Task) -> tuple[str, ...]:
    return (*KINDS[task.step.id.kind].folder(task), task.name)


def _pool(task: Task) -> str:
    """A Volume is deleted from where it was seen: nobody declares it any more."""
    if task.desired is not None:
        return str(task.spec["pool"])
    assert task.observed is not None
    return str(task.observed.spec["pool"])


def _target(task: Task) -> dict[str, str]:
    wants = task.step.id.kind == "Volume" and task.client.address.target
    return {"target": str(task.client.address.target)} if wants else {}


def _check_snapshots(task: Task, path: tuple[str, ...]) -> None:
    """LXD deletes a volume's snapshots with it, without asking: we ask."""
    snapshots = task.client.get(*path, "snapshots", within=task.deadline).metadata or []
    if snapshots and not task.settings.confirm_delete:
        raise Refused(
            Problem(
                f"it has {len(snapshots)} snapshots, which would go with it",
                subject=str(task.step.id),
                hint="if that is meant, say --confirm-delete",
            )
        )
