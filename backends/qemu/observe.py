"""OBSERVE: what the QEMUs of this host are doing, asked of themselves, all at once → Observed in resolved terms.

The record supplies only what no QEMU can tell (files, run, ready …) and what a machine that is down was last given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.backends.qemu import process, records
from reconciler.backends.qemu.aspects import REQUIRED, Command, Reading, View, files, questions, read
from reconciler.backends.qemu.aspects.disks import size_of
from reconciler.backends.qemu.disks import header_of
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.machine import BOOT, drives_of
from reconciler.backends.qemu.provision import due_files
from reconciler.backends.qemu.records import Record
from reconciler.diff import diff
from reconciler.model import QEMU, Condition, Json, Observed, Power, ResourceId
from reconciler.problems import BackendError, Problem, Refused, Unreachable

if TYPE_CHECKING:
    from reconciler.backends.qemu.agent import Agent

PATIENCE = 5.0
"""Seconds for one VM to answer everything; all are asked at the same time."""
_AGENTS = 16
_AGENT_PATIENCE = 3.0
"""Seconds for an agent to show that it listens: one that does answers in milliseconds."""
_POWERS = {
    "running": Power.RUNNING,
    "paused": Power.PAUSED,
    "suspended": Power.PAUSED,
    "io-error": Power.PAUSED,  # it has stopped the guest so that nothing is lost, and can let it go on
    "prelaunch": Power.STOPPED,
    "shutdown": Power.STOPPED,
}
_NO_ROOM = Condition(
    "Disks", False, "IoError", "a disk of it could not be written on this host, so it waits: is there room left?"
)
_BASICS: Mapping[str, Command] = {"status": ("query-status", {}), "uuid": ("query-uuid", {})}


@dataclass(frozen=True, slots=True)
class Seen:
    """One VM, before it is put into words: what its monitor said, why it said nothing, or None when there is none."""

    folder: Folder
    record: Record
    answers: Mapping[str, Any] | BackendError | None
    word: Mapping[str, bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a QEMU."""
        return self.answers is not None


def observe(folders: Sequence[Folder], stored: Mapping[str, tuple[Path, str]]) -> list[Observed]:
    """All these VMs. Those that do not answer are there too, with the condition ``Answering`` false: hold them."""
    found: list[Observed] = []
    live: dict[str, tuple[Folder, Record]] = {}
    for folder in folders:
        try:
            record = records.load(folder)
            if record is None:
                continue
            if process.find(folder, record) is None:
                found.append(_put(Seen(folder, record, None), stored))
            else:
                live[folder.name] = (folder, record)
        except Unreachable as error:
            found.append(_unknown(folder, None, error))
    asked = {name: {**_BASICS, **questions(record)} for name, (_, record) in live.items()}
    with _words(
        {name: (folder, wanted) for name, (folder, record) in live.items() if (wanted := files(record))}
    ) as said:
        answers = _ask({name: (folder.qmp, list(asked[name].values())) for name, (folder, _) in live.items()})
        words = said()
    for name, (folder, record) in live.items():
        answer = answers[name]
        named = answer if isinstance(answer, BackendError) else dict(zip(asked[name], answer, strict=True))
        found.append(_put(Seen(folder, record, named, words.get(name)), stored))
    return found


def _ask(
    questions: Mapping[str, tuple[Path, Sequence[Command]]],
) -> Mapping[str, list[Json | BackendError] | BackendError]:
    if not questions:
        return {}
    from reconciler.backends.qemu.client import ask_many  # only where a VM runs

    return ask_many(questions, PATIENCE)


@contextmanager
def _words(
    wanted: Mapping[str, tuple[Folder, Sequence[str]]],
) -> Iterator[Callable[[], dict[str, Mapping[str, bytes]]]]:
    """What the guests themselves say, asked of all agents at the same time, and while the caller does something else;
    nothing of those that keep silent."""
    if not wanted:
        yield dict
        return
    from concurrent.futures import ThreadPoolExecutor  # for the few machines with something that only a guest can tell

    with ThreadPoolExecutor(min(len(wanted), _AGENTS)) as pool:
        coming = {name: pool.submit(_word, *one) for name, one in wanted.items()}
        yield lambda: {name: word for name, one in coming.items() if (word := one.result()) is not None}


def _word(folder: Folder, paths: Sequence[str]) -> Mapping[str, bytes] | None:
    from reconciler.backends.qemu.agent import Agent

    try:
        with Agent(folder.agent, f"VirtualMachine/{folder.name}", _AGENT_PATIENCE) as agent:
            return {path: said for path in paths if (said := _file(agent, path)) is not None}
    except BackendError:
        return None


def _file(agent: Agent, path: str) -> bytes | None:
    try:
        return agent.read_file(path)
    except Refused:
        return None  # there is no such file (yet)


def _put(seen: Seen, stored: Mapping[str, tuple[Path, str]]) -> Observed:
    folder, record = seen.folder, seen.record
    if isinstance(seen.answers, BackendError):
        if process.find(folder, record) is None:  # it ended while it was asked
            return _put(Seen(folder, record, None), stored)
        return _unknown(folder, record, seen.answers)
    if seen.answers is None:
        spec = _declared(record)
        spec["disks"] = _disks_at_rest(record, folder, spec.get("disks", {}), stored)
        return _observed(folder, record, Power.STOPPED, Reading(spec, conditions=_ended(folder, record)))
    return _live(seen, seen.answers)


def _observed(folder: Folder, record: Record, power: Power | None, reading: Reading) -> Observed:
    spec = {field: value for field, value in reading.spec.items() if value is not None and value != {}}
    shown = json.dumps([record.environment, record.pending, record.applied, record.later, power, spec], sort_keys=True)
    revision = hashlib.sha256(shown.encode()).hexdigest()
    return Observed(
        ResourceId("VirtualMachine", folder.name),
        QEMU,
        spec,
        power,
        owned=True,
        revision=revision,
        environment=record.environment,
        applied=record.applied,
        pending=record.pending or _left_over(record, power),
        needs=_needs(record),
        conditions=(*reading.conditions, *_waiting(record)),
        later=record.later,
        rules=reading.rules,
        room=reading.room,
    )


def _ended(folder: Folder, record: Record) -> tuple[Condition, ...]:
    """How a QEMU came to its end that we did not end ourselves."""
    if record.process is None:
        return ()
    if process.shut_down_by_guest(folder):
        return (Condition("Ended", True, "ShutDownByGuest", "its guest has shut it down"),)
    return (Condition("Ended", True, "Died", process.last_words(folder)),)


def _waiting(record: Record) -> tuple[Condition, ...]:
    """What is declared, and waits for the guest's next start."""
    changes = diff(record.later or {}, record.applied or {}, record.applied) if record.later is not None else ()
    fields = ", ".join(sorted(change.field for change in changes))
    return (Condition("RestartPending", True, "Waiting", fields),) if fields else ()


def _left_over(record: Record, power: Power | None) -> str | None:
    """What a start from the command line, which has no manifest at hand, left for the next apply."""
    if power is not Power.RUNNING:
        return None
    if due_files(record.applied or {}, record.files):
        return "files"
    return None if record.settled == record.process else "start"


def _unknown(folder: Folder, record: Record | None, error: BackendError) -> Observed:
    """It is there, and what it does is not known: nothing may be done to it, least of all a second QEMU."""
    condition = Condition("Answering", False, type(error).__name__, error.problem.summary)
    if record is not None:
        return _observed(folder, record, None, Reading(_declared(record), conditions=(condition,)))
    id = ResourceId("VirtualMachine", folder.name)
    return Observed(id, QEMU, {}, None, owned=False, conditions=(condition,))


def _declared(record: Record) -> dict[str, Any]:
    """As applied, with the images that it was really made from."""
    spec: dict[str, Any] = json.loads(json.dumps(record.applied or {}))
    boot = record.images.get(BOOT)
    if boot and "image" in spec.get("boot", {}):
        spec["boot"]["image"] = {"name": boot["name"], "identity": boot["identity"]}
    for name, disk in spec.get("disks", {}).items():
        image = record.images.get(name)
        if image and "image" in disk:
            disk["image"] = {"name": image["name"], "identity": image["identity"]}
    spec.pop("power", None)
    return spec


def _live(seen: Seen, answers: Mapping[str, Any]) -> Observed:
    """What QEMU says of itself, in the manifest's words."""
    record = seen.record
    basic = {**_BASICS, **dict.fromkeys(REQUIRED)}
    if refused := next((answers[key] for key in basic if isinstance(answers[key], BackendError)), None):
        return _unknown(seen.folder, record, refused)
    if answers["uuid"]["UUID"] != record.uuid:
        return _unknown(seen.folder, record, _stranger(record))
    spec = _declared(record)
    reading = read(View(seen.folder, record, spec, answers, seen.word))
    status = answers["status"]["status"]
    power = _POWERS.get(status, Power.ERROR)
    if status == "io-error":
        reading = replace(reading, conditions=(*reading.conditions, _NO_ROOM))
    return _observed(seen.folder, record, power, replace(reading, spec={**spec, **reading.spec}))


def _disks_at_rest(
    record: Record, folder: Folder, declared: Mapping[str, Any], stored: Mapping[str, tuple[Path, str]]
) -> dict[str, Any]:
    """The declared disks whose files are there, with the size that the file's header tells."""
    if record.pending == "create":
        return dict(declared)
    drives = {drive.name: drive for drive in drives_of({"disks": declared}, record, folder, stored)}
    disks: dict[str, Any] = {}
    for name, disk in declared.items():
        try:
            header = header_of(drives[name].file)
        except OSError:
            continue
        disks[name] = {**disk, "size": size_of(header.size, disk["size"])} if "size" in disk else disk
    return disks


def _needs(record: Record) -> tuple[ResourceId, ...]:
    spec = record.applied or {}
    disks = spec.get("disks", {}).values()
    needs = {ResourceId("Disk", disk["disk"]) for disk in disks if "disk" in disk}
    needs |= {ResourceId("Image", disk["image"]["name"]) for disk in disks if "image" in disk}
    if "image" in spec.get("boot", {}):
        needs.add(ResourceId("Image", spec["boot"]["image"]["name"]))
    needs |= {ResourceId("Network", nic["bridge"]) for nic in spec.get("nics", {}).values() if nic.get("bridge")}
    return tuple(sorted(needs))


def _stranger(record: Record) -> Unreachable:
    return Unreachable(Problem("the QEMU on its socket bears another uuid", subject=record.id))
