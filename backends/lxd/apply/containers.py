"""APPLY for Container. Every verb may be cut off anywhere: the mark says what is pending, the next pass finishes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from reconciler.backends.lxd.apply import home, plugging, power
from reconciler.backends.lxd.apply.bringing_up import HOME, bring_up, note, risky
from reconciler.backends.lxd.apply.editing import Raw, devices_after, edit, merged, remarked
from reconciler.backends.lxd.apply.guest import take_files_away
from reconciler.backends.lxd.apply.plugging import BODY
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Conflicting, Missing, Reply
from reconciler.backends.lxd.marks import (
    OWED,
    PENDING,
    Mark,
    mark_config,
    read_alias_description,
    read_mark,
    renaming,
    unfinished,
)
from reconciler.backends.lxd.terms import containers as terms
from reconciler.backends.lxd.terms.values import read_bool
from reconciler.model import Change, Power, Spec
from reconciler.problems import BackendError, Interrupted, Problem, Refused

_USUAL = {"profiles": ["default"], "ephemeral": False}  # LXD's own choice, for what is no longer said
_APART = "limits.cpu"  # in one request with limits.memory the cpuset stays old


def create(task: Task) -> None:
    """Make it, or finish one of ours that was left half-made."""
    there = task.client.find("instances", task.name, within=task.deadline) if task.observed else None
    if there is not None:
        _resume(task, there.metadata)
        return
    more = risky(task.spec)
    task.tell("creating")
    source, image = _source(task)
    plugging.preflight(task, task.spec.get("devices") or {})
    mark = task.mark("create" if more else None, image, _owed(task.spec))
    body = {
        "name": task.name,
        "type": "container",
        "source": source,
        "config": _config(task) | mark_config(mark),
        "devices": plugging.devices_to_be(task, {"devices": {}, "expanded_config": {}}, everything=True),
        "ephemeral": bool(task.spec.get("ephemeral", False)),
    }
    if "profiles" in task.spec:
        body["profiles"] = list(task.spec["profiles"])
    query = {"target": task.client.address.target} if task.client.address.target else {}
    try:
        task.client.post(("instances",), body, task.deadline, **query)
    except (Conflicting, Interrupted):
        there = task.client.find("instances", task.name, within=task.deadline)
        if there is None:
            raise
        _resume(task, there.metadata)  # it appeared since we looked: by an earlier try of ours, or by somebody else
        return
    bring_up(task, pending=mark.pending, files=None, now=Power.STOPPED)


def _config(task: Task) -> dict[str, str]:
    """What the spec states; and what must not be left open, unless a profile that it names says it."""
    config = terms.stated(task.spec, terms.FIELDS)
    named = task.spec.get("profiles") or () if terms.UNSAID.keys() - config.keys() else ()
    found = [task.client.find("profiles", name, within=task.deadline) for name in named]
    said = {key for profile in found if profile is not None for key in profile.metadata["config"]}
    return {key: value for key, value in terms.UNSAID.items() if key not in said} | config


def update(task: Task) -> None:
    """Change what can be changed as it is; also: finish what an earlier pass left pending, adopt, rename."""
    with _outliving(task) if task.renamed_from else contextlib.nullcontext():
        _rename(task)
        _update(task)


def _update(task: Task) -> None:
    reply = task.client.get("instances", task.name, within=task.deadline)
    raw, rests = reply.metadata, task.spec.get("power") == Power.STOPPED
    mark = _mark(task, raw)
    task.check_ours(mark)
    pending = unfinished(mark, terms.is_up(raw)) if mark else None
    _check_root_disk(task, raw)
    if rests:
        if task.special("ephemeral"):
            power.set_ephemeral(task.client, task.name, False, task.deadline)
        power.check_outlives_stop(task.client, task.name, task.deadline)
        power.stop(task.client, task.name, task.deadline, task.tell)
    _settle(task, pending, None if rests else reply)


def restart(task: Task, force: bool = False, grace: float = power.GRACE) -> None:
    """The same with the guest down in between. grace: seconds that it has to go down by itself, unless ``force``."""
    raw = task.client.get("instances", task.renamed_from or task.name, within=task.deadline).metadata
    task.check_ours(read_mark(raw["config"], f"Container/{raw['name']}"))
    plugging.check_moved(task, raw)
    _check_root_disk(task, raw)
    with _outliving(task):
        power.stop(task.client, raw["name"], task.deadline, task.tell, force=force, grace=grace)
        try:
            update(task)
        except Refused:
            with contextlib.suppress(BackendError):  # what LXD did not take must not keep the guest down
                power.start(task.console, task.deadline, task.tell)
            raise


@contextlib.contextmanager
def _outliving(task: Task) -> Iterator[None]:
    """LXD deletes an ephemeral one when it stops: it is none while this lasts, and is one again afterwards.

    After a crash in between the next pass sees that it is not ephemeral, as any other field that differs.
    """
    name = task.renamed_from or task.name
    found = task.client.find("instances", name, within=task.deadline)
    ephemeral = found is not None and found.metadata["ephemeral"]
    if ephemeral:
        power.set_ephemeral(task.client, name, False, task.deadline)
    try:
        yield
    finally:
        if ephemeral and not task.special("ephemeral"):
            with contextlib.suppress(Missing):
                _ephemeral_again(task)


def _ephemeral_again(task: Task) -> None:
    """Only what runs: one that went down meanwhile is what its last words are looked for in."""
    if power.power_now(task.client, task.name, task.deadline) is not Power.STOPPED:
        power.set_ephemeral(task.client, task.name, True, task.deadline)


def replace(task: Task) -> None:
    """Delete and make anew; custom volumes are objects of their own and survive."""
    delete(task)
    create(task)


def delete(task: Task) -> None:
    """Make it go away. LXD stops a protected instance and refuses then: look first."""
    found = task.client.find("instances", task.name, within=task.deadline)
    if found is None:
        return
    task.check_ours(_mark(task, found.metadata))
    if read_bool(found.metadata["expanded_config"].get("security.protection.delete", "")):
        raise Refused(
            Problem(
                "security.protection.delete stands on it: not even stopped",
                subject=str(task.step.id),
                hint="set it to false first",
            )
        )
    with contextlib.suppress(Missing):  # an ephemeral one goes with its stop, and an earlier try may still be at work
        power.stop(task.client, task.name, task.deadline, task.tell)
        task.tell("deleting")
        task.client.delete(("instances", task.name), task.deadline)
    task.console.forget()


def _source(task: Task) -> tuple[dict[str, str], dict[str, Any]]:
    """Where LXD takes the root file system from, and what our mark says about it."""
    image = dict(task.spec["image"])
    if remote := image.get("remote"):
        return {"type": "image", "mode": "pull", **remote}, image
    known = (image["name"], image.get("identity", ""))
    if fingerprint := task.images.get(known):
        return {"type": "image", "fingerprint": fingerprint}, {**image, "fingerprint": fingerprint}
    alias = task.client.find("images", "aliases", image["name"], within=task.deadline)
    if alias is None:
        raise Refused(Problem(f'there is no image "{image["name"]}"', subject=str(task.step.id)))
    fingerprint = alias.metadata["target"]
    mark = read_alias_description(alias.metadata["description"], f"Image/{image['name']}")
    if mark is not None and mark.applied is not None:
        if mark.applied.get("identity") != image.get("identity"):
            raise Interrupted(Problem(f"Image/{image['name']} is not the declared one (yet)", hint="apply again"))
        task.images[known] = fingerprint
    return {"type": "image", "fingerprint": fingerprint}, {**image, "fingerprint": fingerprint}


def _owed(spec: Spec) -> str | None:
    """What is left for the first start of a guest that is created stopped."""
    commands = any(one["when"] == "create" for one in spec.get("run") or ())
    wanted = commands or any(spec.get(part) for part in home.FIELDS)
    return "create" if wanted and spec.get("power") == Power.STOPPED else None


def _resume(task: Task, raw: Raw) -> None:
    mark = _mark(task, raw)
    task.check_ours(mark)
    _settle(task, (mark.pending if mark else None) or "create")


def _mark(task: Task, raw: Raw) -> Mark | None:
    return read_mark(raw["config"], task.marked_id)


def _rename(task: Task) -> None:
    """Under the old name: announce it on the object, stop, rename. The new mark is written when all is done."""
    old = task.renamed_from
    if old is None or task.client.find("instances", task.name, within=task.deadline) is not None:
        return
    announced = {"config": {PENDING: renaming(task.marked_id)}}
    task.client.patch(("instances", old), announced, task.deadline)
    power.stop(task.client, old, task.deadline, task.tell)
    task.tell(f"renaming from {old}")
    task.client.post(("instances", old), {"name": task.name}, task.deadline)


def _settle(task: Task, pending: str | None, reply: Reply | None = None) -> None:
    """Bring an existing instance to what is wanted: all of it when something is pending, else the step's changes.

    reply: a reading from a moment ago, since which nothing was done to it; what is down waits for no further ones
    """
    finishing = bool(pending)
    files = None if finishing else _changed_files(task)
    commands = finishing or any(change.path[0] in ("files", "run") for change in task.step.changes)
    if commands or files or home.concerned(task):
        pending = pending or ("update" if commands or files else HOME)
        note(task, pending)
        take_files_away(task)  # before the mark forgets them
        home.take_back(task)
        _owe(task)
        reply = None
    with _room_named(task):
        raw = _configure(task, finishing, reply)
    bring_up(task, pending=pending, files=files, raw=raw)


def _owe(task: Task) -> None:
    """What can only be changed while it runs is done at its next start, where it is to be down now."""
    if task.spec.get("power") == Power.STOPPED and home.concerned(task):
        raw = task.client.get("instances", task.name, within=task.deadline).metadata
        owed = {OWED: raw["config"].get(OWED) or HOME}
        task.client.patch(("instances", task.name), {"config": owed}, task.deadline)


def _changed_files(task: Task) -> set[str]:
    return {change.path[1] for change in task.step.changes if change.path[0] == "files" and len(change.path) > 1}


def _configure(task: Task, everything: bool, reply: Reply | None = None) -> Raw | None:
    """Config, devices, profiles: limits.cpu by itself, the rest together with the new mark.

    reply: as for ``_settle``. Gives back how it was read last, where nothing was written after that, else None.
    """
    keys = terms.keys_touched(task.step.changes)
    names = terms.devices_touched(task.step.changes)
    if everything:
        keys |= set(terms.config_of(task.spec)) - _ignored(task)
        names |= set(task.spec.get("devices") or {})

    def unchecked(raw: Raw) -> dict[str, Any] | None:
        return _body(task, raw, keys, everything, last=True)

    def checked(raw: Raw, keys: Collection[str] = keys, last: bool = True) -> dict[str, Any] | None:
        plugging.check_moved(task, raw)
        return _body(task, raw, keys, everything, last)

    if names:
        only = not everything and all(change.path[0] == "devices" for change in task.step.changes)
        reply = reply or task.client.get("instances", task.name, within=task.deadline)
        done, raw = _plug(task, reply, names, unchecked if only else None)  # it looks at each device by itself
        if done:
            return raw
    if _APART in keys:
        edit(task, ("instances", task.name), lambda raw: checked(raw, {_APART}, last=False))
    return edit(task, ("instances", task.name), checked, None if names or _APART in keys else reply)


@contextlib.contextmanager
def _room_named(task: Task) -> Iterator[None]:
    """Why the kernel does not let a running one have less memory: LXD says only that it could not be set."""
    try:
        yield
    except Refused as error:
        if "setting cgroup item" not in error.problem.summary or ("memory", "size") not in _paths(task):
            raise
        said, hint = error.problem.summary, "end what takes it, then apply again"
        summary = "memory.size: it uses more than that, or more than can be taken from it while it runs"
        raise Refused(Problem(summary, subject=str(task.step.id), detail=said, hint=hint)) from error


def _paths(task: Task) -> set[tuple[str, ...]]:
    return {tuple(change.path) for change in task.step.changes}


def _plug(
    task: Task, reply: Reply, names: set[str], whole: Callable[[Raw], dict[str, Any] | None] | None
) -> tuple[bool, Raw | None]:
    """The devices of one that runs, each by itself; those of one that is down are only looked at beforehand.

    whole: what makes everything else, where that may go with the last of them; True when it did. And how the container
    was read afterwards, where it was.
    """
    if terms.power_of(reply.metadata["status"]) in (Power.RUNNING, Power.PAUSED):
        return plugging.settle(task, reply, names, whole)
    plugging.preflight(task, names)
    return False, None


def _ignored(task: Task) -> set[str]:
    """The config keys that the manifest leaves to somebody else."""
    paths = [tuple(path.split(".", 1)) for path in task.spec.get("ignore") or ()]
    whole = any(path == ("config",) for path in paths)
    named = terms.keys_touched(Change("change", path, None, None) for path in paths)
    return named | (set(task.spec.get("config") or {}) if whole else set())


def _body(task: Task, raw: Raw, keys: Collection[str], everything: bool, last: bool) -> dict[str, Any] | None:
    """What to PUT, from a fresh reading; None when nothing would change."""
    body = {key: raw[key] for key in BODY}
    body["config"] = merged(raw["config"], terms.config_of(task.spec), keys)
    if last:
        _body_rest(task, raw, body, everything)
    return body if any(body[key] != raw[key] for key in BODY) else None


def _body_rest(task: Task, raw: Raw, body: dict[str, Any], everything: bool) -> None:
    body["devices"] = plugging.devices_to_be(task, raw, everything)
    for key in _USUAL:
        body[key] = _stated(task, raw, key, everything)
    mark = _mark(task, raw)
    kept = task.mark(raw["config"].get(PENDING) or None, mark.image if mark else None, mark.owed if mark else None)
    body["config"] = remarked(body["config"], mark_config(kept))


def _stated(task: Task, raw: Raw, key: str, everything: bool) -> Any:
    """That part of the body: as wanted, LXD's own choice when it is no longer said, else as it is."""
    concerned = task.special(key) or (everything and key in task.spec)
    return task.spec.get(key, _USUAL[key]) if concerned else raw[key]


def _check_root_disk(task: Task, raw: Raw) -> None:
    """Raise Refused when the step takes the last root disk away: asked before the guest goes down for it."""
    everything = bool(raw["config"].get(PENDING))
    touched = terms.devices_touched(task.step.changes) | (set(task.spec.get("devices") or {}) if everything else set())
    concerned = [
        devices.get(name) or {}
        for devices in (raw["expanded_devices"] or {}, task.spec.get("devices") or {})
        for name in touched
    ]
    if task.special("profiles") is None and not any(device.get("path") == "/" for device in concerned):
        return
    devices: dict[str, Any] = {}
    for profile in _stated(task, raw, "profiles", everything):
        found = task.client.find("profiles", profile, within=task.deadline)
        devices |= found.metadata["devices"] if found else {}
    devices |= devices_after(task, raw, everything)
    if not any(one.get("type") == "disk" and one.get("path") == "/" for one in devices.values()):
        raise Refused(
            Problem(
                "no root disk would be left",
                subject=str(task.step.id),
                hint='keep a disk device with path "/", or a profile that has one',
            )
        )
