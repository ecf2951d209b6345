"""VALIDATE: contradictions in what a VirtualMachine or Container is to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconciler.quantities import human_size, size
from reconciler.validation.findings import Notes
from reconciler.validation.machine import Machine, this_machine
from reconciler.validation.semantics.images import source
from reconciler.validation.semantics.paths import guest_path
from reconciler.validation.semantics.raw import config, devices, overlaps

Spec = Mapping[str, Any]

_MIB = 1 << 20
_OVERSUBSCRIPTION = 8
"""Virtual CPUs for each real one; nobody means more."""
_FIELD_OF_KEY = {
    "limits.cpu": "cpus",
    "limits.memory": "memory",
    "security.nesting": "nesting",
    "security.privileged": "privileged",
    "cloud-init.user-data": "cloudInit.userData",
    "cloud-init.network-config": "cloudInit.networkConfig",
    "user.user-data": "cloudInit.userData",
    "user.network-config": "cloudInit.networkConfig",
    "user.meta-data": "cloudInit.metaData",
    "boot.autostart": "lifetime",
}


def container(notes: Notes, spec: Spec) -> None:
    """A Container."""
    _common(notes, spec, this_machine() if spec.get("host", "local") == "local" else None)
    if spec.get("ephemeral") and spec.get("power") == "stopped":
        hint = "LXD deletes an ephemeral container when it stops: take one of the two out"
        notes.note(("spec", "ephemeral"), "contradicts power: stopped", hint)
    if spec.get("ephemeral") and spec.get("lifetime") == "session":
        hint = "LXD deletes an ephemeral container when it stops, and lifetime: session keeps its data"
        notes.note(("spec", "lifetime"), "session contradicts ephemeral: true", hint)
    if "user" in spec:
        _user(notes, spec["user"])
    if "config" in spec:
        config(notes, ("spec", "config"), spec["config"])
        overlaps(notes, spec, _FIELD_OF_KEY)
    if "devices" in spec:
        devices(notes, ("spec", "devices"), spec["devices"])


def _user(notes: Notes, user: Spec) -> None:
    if user["name"] == "root":
        notes.note(("spec", "user", "name"), "root is there in any case", "name the account that people use")
    for part in ("home", "shell"):
        if part in user:
            guest_path(notes, ("spec", "user", part), user[part], file=True)


def machine(notes: Notes, spec: Spec) -> None:
    """A VirtualMachine."""
    _common(notes, spec, this_machine())
    if spec.get("lifetime") == "always" and spec.get("restart", "always") != "always":
        hint = "lifetime: boot leaves that to restart"
        notes.note(("spec", "restart"), "contradicts lifetime: always", hint)
    for name in ("disks", "nics"):
        if name in spec:
            _unique(notes, ("spec", name), spec[name], "name")
    for index, nic in enumerate(spec.get("nics", ())):
        if "mac" in nic:
            _mac(notes, ("spec", "nics", index, "mac"), nic["mac"])
    _boot(notes, spec)
    for index, disk in enumerate(spec.get("disks", ())):
        if isinstance(image := disk.get("image"), Mapping):
            source(notes, ("spec", "disks", index, "image", "source"), image["source"], "virtual-machine")
    ready = spec.get("ready", {})
    if ready.get("guestAgent") and spec.get("guestAgent") is False:
        notes.note(("spec", "ready", "guestAgent"), "contradicts guestAgent: false", "take one of the two out")


def _boot(notes: Notes, spec: Spec) -> None:
    boot = spec.get("boot", {})
    if isinstance(image := boot.get("image"), Mapping):
        source(notes, ("spec", "boot", "image", "source"), image["source"], "virtual-machine")
    if "kernel" in boot and spec.get("firmware") == "uefi":
        notes.note(("spec", "firmware"), "contradicts boot.kernel", "a kernel is booted without uefi: take one out")


def _common(notes: Notes, spec: Spec, machine: Machine | None) -> None:
    """What both kinds have. machine: where it will run; None where that is not known."""
    if "memory" in spec:
        _memory(notes, spec["memory"], machine)
    if "cpus" in spec:
        _cpus(notes, spec["cpus"], machine)
    if "files" in spec:
        _unique(notes, ("spec", "files"), spec["files"], "path")
        for index, file in enumerate(spec["files"]):
            guest_path(notes, ("spec", "files", index, "path"), file["path"], file=True)
    for index, run in enumerate(spec.get("run", ())):
        _command(notes, ("spec", "run", index, "command"), run["command"])
    ready = spec.get("ready", {})
    if "log" in ready:
        _regex(notes, ("spec", "ready", "log"), ready["log"])
    if "command" in ready:
        _command(notes, ("spec", "ready", "command"), ready["command"])
    if isinstance(image := spec.get("image"), Mapping):
        source(notes, ("spec", "image", "source"), image["source"], "container")


def _memory(notes: Notes, given: Any, machine: Machine | None) -> None:
    parts: Iterable[tuple[tuple[str, ...], Any]] = (((), given),)
    if isinstance(given, Mapping):
        parts = [((name,), value) for name, value in given.items()]
        if "max" in given and size(given["max"]) < size(given["size"]):
            notes.note(("spec", "memory", "max"), "is less than size", "max is what the memory may grow to")
    for below, value in parts:
        _amount(notes, ("spec", "memory", *below), size(value), machine)


def _amount(notes: Notes, path: Sequence[str | int], amount: int, machine: Machine | None) -> None:
    if amount < _MIB:
        hint = f'did you mean "{amount}MiB"?'
        notes.note(path, f'expected a size such as "2GiB", got {amount} bytes', hint)
    elif machine is not None and amount > machine.memory:
        has = human_size(machine.memory // _MIB * _MIB)
        notes.note(path, f"{human_size(amount)} are more than this machine has ({has})", "ask for less")


def _cpus(notes: Notes, given: Any, machine: Machine | None) -> None:
    path: tuple[str, ...] = ("spec", "cpus")
    count = given
    if isinstance(given, Mapping):
        count, most = given["count"], given.get("max")
        if most is not None and isinstance(count, str):
            notes.note((*path, "max"), "contradicts a count that names CPUs", "give the count as a number")
        elif most is not None and most < count:
            notes.note((*path, "max"), "is less than count", "max is what the count may grow to")
        if most is not None:
            _cpu_count(notes, (*path, "max"), most, machine)
        path = (*path, "count")
    if isinstance(count, str):
        _cpu_set(notes, path, count, machine)
    else:
        _cpu_count(notes, path, count, machine)


def _cpu_count(notes: Notes, path: Sequence[str], count: int, machine: Machine | None) -> None:
    if machine is not None and count > machine.cpus * _OVERSUBSCRIPTION:
        summary = f"{count} CPUs are far more than this machine has ({machine.cpus})"
        notes.note(path, summary, f"ask for {machine.cpus * _OVERSUBSCRIPTION} at most")


def _cpu_set(notes: Notes, path: Sequence[str], given: str, machine: Machine | None) -> None:
    """``0-3,6``: lower bound first, and CPUs that are there. LXD takes a lone number for how many."""
    if given.isdigit():
        hint = f'write {int(given)} for so many CPUs, "{given}-{given}" for that one'
        notes.note(path, f'"{given}" may mean how many, or which one', hint)
        return
    for part in given.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            notes.note(path, f'"{part}" runs backwards', f'did you mean "{last}-{first}"?')
        elif machine is not None and int(last or first) >= machine.cpus:
            notes.note(path, f'"{part}": this machine has CPUs 0-{machine.cpus - 1}')


def _unique(notes: Notes, path: Sequence[str | int], entries: Sequence[Mapping[str, Any]], key: str) -> None:
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if entry[key] in seen:
            summary = f'"{entry[key]}" is already that of entry {seen[entry[key]] + 1}'
            notes.note((*path, index, key), summary, f"give each entry a {key} of its own")
        seen.setdefault(entry[key], index)


def _mac(notes: Notes, path: Sequence[str | int], mac: str) -> None:
    if int(mac[:2], 16) & 1:
        notes.note(path, f'"{mac}" is a group address', 'the first pair must be even: "52:54:00:…"')
    elif set(mac) <= {"0", ":"}:
        notes.note(path, f'"{mac}" is no address', 'such as "52:54:00:44:49:56"')


def _regex(notes: Notes, path: Sequence[str | int], given: str) -> None:
    try:
        re.compile(given)
    except (re.error, RecursionError, OverflowError) as error:
        notes.note(path, f"not a regular expression: {error}", "put a backslash before each special character")


def _command(notes: Notes, path: Sequence[str | int], command: Sequence[str]) -> None:
    if not command[0].strip():
        notes.note((*path, 0), "the program's name is empty")
