"""OBSERVE and APPLY, what we remember of a VM: its record, read and written as a whole.

The record is the ownership mark of a VM; a QEMU process is recognised by the uuid in it. Everything that QEMU itself
can tell is asked of QEMU.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from reconciler.backends.qemu.folders import Folder, all_folders
from reconciler.model import Json, Spec
from reconciler.paths import write_private
from reconciler.problems import Problem, Unreachable

_NAMESPACE = uuid.UUID("6e0f2b1c-7f0d-5a67-9a5e-0c7b7f0f5d11")
_FIRST_UID = 0x70000000
_UIDS = 0x0FFF0000
_PROCESSES = ("process", "settled")


@dataclass(frozen=True, slots=True)
class Process:
    """The QEMU of a VM. started: clock ticks since boot; boot: which boot of the host. Together they never repeat."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True)
class Record:
    """What no QEMU can tell.

    uuid:     what its QEMU is recognised by
    birth:    its first uuid, which a renamed VM keeps: MAC addresses and cloud-init's instance-id come from it
    uid:      the user its QEMU runs as; None: as ourselves, because we are not root
    applied:  the spec that our last apply set; None before the first one got anywhere
    pending:  why the last apply is not finished
    born:     the ``run`` commands of creation were all done
    process:  the last QEMU that we started; None when we know that it has ended
    images:   disk name (or "boot") → {"name", "identity"}: what the guest was made from, whatever is declared now
    log_start: where in the serial log its last boot begins, in bytes
    files:    path in the guest → what we put there, as in ``spec["files"]``
    runs:     ``spec["run"]`` when its commands were last run to the end
    settled:  the QEMU whose guest was seen ready, its ``start`` commands done
    lxd_port: where on this host's loopback the LXD inside is reached
    lxd_trust: digest of the two certificates that the LXD inside and we know each other by
    later:    the spec that waits for the guest's next start; None when nothing waits
    plugged:  id in QEMU's device tree → with what it was, or is just about to be, plugged in
    mounted:  id in that tree → where in the guest we have mounted what is on it; see inside/disks
    """

    id: str
    environment: str
    uuid: str
    birth: str
    uid: int | None
    applied: Spec | None = None
    pending: str | None = None
    born: bool = False
    process: Process | None = None
    images: Mapping[str, Json] = field(default_factory=dict)
    log_start: int = 0
    files: Mapping[str, Json] = field(default_factory=dict)
    runs: Sequence[Json] = ()
    settled: Process | None = None
    lxd_port: int | None = None
    lxd_trust: str | None = None
    later: Spec | None = None
    plugged: Mapping[str, Json] = field(default_factory=dict)
    mounted: Mapping[str, Json] = field(default_factory=dict)

    def but(self, **changes: Any) -> Record:
        """The same record with other values."""
        return replace(self, **changes)


def load(folder: Folder) -> Record | None:
    """The record; None when there is none. Unreachable when it cannot be read: then nothing may be concluded."""
    try:
        text = folder.record.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(folder, str(error.strerror)) from error
    try:
        return _decode(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(folder, "it is damaged") from error


def save(folder: Folder, record: Record) -> Record:
    """Write it as a whole or not at all; returns it. What stands there already is not written again: a write has to
    reach the disk, and takes milliseconds."""
    # Not sorted: disks and cards are plugged in as they were declared, after the next start too.
    data = json.dumps(_encode(record), indent=1).encode()
    if not _stands(folder.record, data):
        write_private(folder.record, data)
    return record


def new_record(folder: Folder, state: Path, runtime: Path, environment: str, id: str) -> Record:
    """The first record of a VM: its uuid and, when we are root, a user of its own."""
    identity = make_uuid(state, environment, id)
    return Record(id, environment, str(identity), str(identity), _free_uid(identity, state, runtime, folder.name))


def make_uuid(state: Path, environment: str, id: str) -> uuid.UUID:
    """The same for the same resource of the same environment and state folder, always."""
    return uuid.uuid5(_NAMESPACE, f"{state.resolve()}\0{environment}\0{id}")


def _free_uid(identity: uuid.UUID, state: Path, runtime: Path, name: str) -> int | None:
    """Derived from the uuid, so that VMs of other state folders hardly ever share one; the next free one if taken."""
    if os.geteuid() != 0:
        return None
    others = [folder for folder in all_folders(state, runtime) if folder.name != name]
    taken = {record.uid for folder in others if (record := _load_if_whole(folder))}
    wanted = identity.int % _UIDS
    return next(uid for step in range(_UIDS) if (uid := _FIRST_UID + (wanted + step) % _UIDS) not in taken)


def _stands(file: Path, data: bytes) -> bool:
    try:
        return file.read_bytes() == data
    except OSError:
        return False


def _load_if_whole(folder: Folder) -> Record | None:
    try:
        return load(folder)
    except Unreachable:
        return None


def _encode(record: Record) -> dict[str, Any]:
    """Layer by layer: ``asdict`` copies everything that is in them."""
    data = {name.name: getattr(record, name.name) for name in fields(Record)}
    return data | {name: asdict(data[name]) for name in _PROCESSES if data[name] is not None}


def _decode(data: Any) -> Record:
    known = {name.name for name in fields(Record)}
    if not isinstance(data, dict):
        raise TypeError("a record is a mapping")
    values = {key: value for key, value in data.items() if key in known}
    values["runs"] = tuple(values.get("runs", ()))
    for name in _PROCESSES:
        if values.get(name) is not None:
            values[name] = Process(**values[name])
    return Record(**values)


def _unreadable(folder: Folder, why: str) -> Unreachable:
    return Unreachable(
        Problem(
            f"its record cannot be read: {why}",
            subject=f"VirtualMachine/{folder.name}",
            hint=f"mend {folder.record}, or delete the folder once no QEMU of it runs",
        )
    )
