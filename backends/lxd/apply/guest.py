"""APPLY, inside the guest: the manifest's ``files`` by LXD's files API, its ``run`` commands by exec."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Missing, TooMuch
from reconciler.backends.lxd.console import tail
from reconciler.backends.lxd.session import TookTooLong, capture
from reconciler.manifest import MAX_PAYLOAD
from reconciler.problems import GuestFailed, Problem, Refused

_FOLDER = {"X-LXD-type": "directory", "X-LXD-mode": "0755", "X-LXD-uid": "0", "X-LXD-gid": "0"}


def put_files(task: Task, paths: Collection[str] | None) -> None:
    """Put these files into the guest (None: all that the spec names); works on a stopped one too."""
    files: Mapping[str, Mapping[str, str]] = task.spec.get("files") or {}
    for path, about in files.items():
        if paths is None or path in paths:
            task.tell(f"writing {path}")
            _put_file(task, path, about)


def take_files_away(task: Task) -> None:
    """Remove what an earlier apply put there and the manifest no longer names; what was changed since then stays."""
    applied = task.observed.applied if task.observed else None
    before: Mapping[str, Mapping[str, str]] = (applied or {}).get("files") or {}
    for path in before.keys() - (task.spec.get("files") or {}).keys():
        if task.special("files") or any(change.path[:2] == ("files", path) for change in task.step.changes):
            _take_away(task, path, before[path])


def _take_away(task: Task, path: str, before: Mapping[str, Any]) -> None:
    """A secret goes whatever became of it: its digest is none that could be compared."""
    place = ("instances", task.name, "files")
    try:
        data: bytes | None = task.client.raw(*place, within=task.deadline, most=MAX_PAYLOAD, path=path)
    except Missing:
        return
    except TooMuch:
        data = None  # nothing of that length was ever put there
    kept = data is not None and hashlib.sha256(data).hexdigest() == before["sha256"]
    if not kept and not before.get("secret"):
        task.tell(f"leaving {path}: it is not what was put there")
        return
    task.tell(f"removing {path}")
    task.client.delete(place, task.deadline, path=path)


def _put_file(task: Task, path: str, about: Mapping[str, str]) -> None:
    assert task.desired is not None
    uid, _, gid = about["owner"].partition(":")
    headers = {
        "X-LXD-type": "file",
        "X-LXD-write": "overwrite",
        "X-LXD-mode": about["mode"],
        "X-LXD-uid": uid,
        "X-LXD-gid": gid or uid,
        "Content-Type": "application/octet-stream",
    }
    for folder in reversed(PurePosixPath(path).parents[:-1]):
        _upload(task, str(folder), b"", _FOLDER)
    if not _same_rights(task, path, about):
        # LXD keeps mode and owner of a file that it overwrites
        task.client.delete(("instances", task.name, "files"), task.deadline, path=path)
    _upload(task, path, task.desired.payload[about["sha256"]], headers)


def _same_rights(task: Task, path: str, about: Mapping[str, str]) -> bool:
    """Whether the file was put there with this mode and owner before, by an apply that came to its end."""
    seen = task.observed
    if seen is None or seen.pending or seen.applied is None:
        return False
    before = (seen.applied.get("files") or {}).get(path)
    return before is not None and all(before[key] == about[key] for key in ("mode", "owner"))


def _upload(task: Task, path: str, data: bytes, headers: Mapping[str, str]) -> None:
    try:
        task.client.upload(("instances", task.name, "files"), data, headers, task.deadline, path=path)
    except Refused as error:
        raise Refused(Problem(f"{path}: {error.problem.summary}", subject=str(task.step.id))) from error


def run_commands(task: Task, when: Collection[str], done: int, note: Callable[[int], None]) -> None:
    """Run the commands whose ``when`` is among these, but not the first ``done`` of them; note each that is done."""
    chosen = [one for one in task.spec.get("run") or () if one["when"] in when]
    for number, one in enumerate(chosen, start=1):
        if number > done:
            _run(task, one)
            note(number)


def _run(task: Task, one: Mapping[str, Any]) -> None:
    words = list(one["command"])
    task.tell(f"running {words[0]}")
    try:
        code, output = capture(task.client, task.name, words, task.deadline.within(float(one["timeout"])))
    except TookTooLong as error:
        raise GuestFailed(
            Problem(f"run: {words[0]}: took longer than {one['timeout']:g} s", subject=str(task.step.id))
        ) from error
    if code != 0:
        raise GuestFailed(
            Problem(f"run: {words[0]}: ended with exit code {code}", subject=str(task.step.id), detail=tail(output))
        )
