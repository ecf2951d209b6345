"""APPLY for the devices of a running container: one after the other, each seen to be there afterwards.

LXD takes an old device out before it tries the new one, and when it refuses that, the old one is gone from the guest
although the config still shows it. So a refusal puts the old one back, and what is missing is plugged in again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

from reconciler.backends.lxd.apply import shares
from reconciler.backends.lxd.apply.editing import Change_, Raw, check_unmoved, devices_after, edit
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Reply
from reconciler.backends.lxd.inside import Identity, identity_inside, look
from reconciler.backends.lxd.listening import open_here
from reconciler.backends.lxd.server import server
from reconciler.backends.lxd.terms import containers as terms
from reconciler.backends.lxd.terms.values import read_bool
from reconciler.problems import BackendError, GuestFailed, Interrupted, Problem, Refused
from reconciler.sockets import split_listen

BODY = ("architecture", "config", "devices", "ephemeral", "profiles", "description")
CHECKED = terms.SEEN - {"power", "image", "ephemeral"} | {"cpus", "memory"}

Device = Mapping[str, str]

_IN_USE, _NO_LISTENER = "address already in use", "Failed to receive fd from listener process"
"""What LXD says of a port that cannot be had: as its forwarder found it, or as it found its forwarder."""


def preflight(task: Task, names: Collection[str]) -> dict[str, Identity]:
    """What can be refused before anything is touched; the folders behind the shares among these devices."""
    for name in sorted(names):
        device = (task.spec.get("devices") or {}).get(name) or {}
        if device.get("type") == "usb" and "serial" in device:
            _check_serial(task, name)
    found = shares.identities(task, names)
    if found:
        shares.learn_owners(task)
    return found


def check_moved(task: Task, raw: Raw) -> None:
    """Raise Interrupted when what the step is about is not as the plan saw it (see ``editing.check_unmoved``)."""
    seen = terms.spec_of(raw)
    for change in task.step.changes:
        if _is_lame(change.path, change.op, change.old) and change.path[1] in seen["devices"]:
            seen["devices"][change.path[1]].pop("type", None)  # as observation shows what is not really there
    check_unmoved(task.step.changes, seen, CHECKED)


def devices_to_be(task: Task, raw: Raw, everything: bool) -> dict[str, dict[str, str]]:
    """The devices as the step makes them, shares with the owners that LXD can give them."""
    after = devices_after(task, raw, everything)
    there = raw["devices"] or {}
    return {name: _as_lxd_has_it(task, raw, name, device, there.get(name)) for name, device in after.items()}


def settle(task: Task, reply: Reply, names: Collection[str], whole: Change_ | None = None) -> tuple[bool, Raw | None]:
    """Bring these devices of a running container to what is wanted; raises when one is not there in the end.

    reply: a reading from a moment ago, since which nothing was done to it
    whole: makes everything that is left to do of the step, the mark included; it goes with the last device, if that
           has to be touched: True then. And how the container was read afterwards, where it was.
    """
    raw, unused = reply.metadata, [reply]
    check_moved(task, raw)
    folders = preflight(task, names)
    wanted, there = task.spec.get("devices") or {}, dict(raw["devices"] or {})
    for name in _in_the_way(wanted, there, names):
        unused.clear()
        _put(task, name, None, there.pop(name))  # two that change places: one of them has to step aside first
    # What goes makes room (a path, a port) for what comes.
    order = sorted(names, key=lambda name: (name in wanted, name not in there, name))
    touched = [
        _settle_one(task, raw, name, there.get(name), whole if name == order[-1] else None, unused) for name in order
    ]
    return whole is not None and touched[-1], verify(task, folders, names)


def verify(task: Task, folders: Mapping[str, Identity], names: Collection[str]) -> Raw | None:
    """See that these devices are in the running container, and that shares show the folders that were meant. Gives
    back how it was read for that."""
    wanted = {name for name in names if name in (task.spec.get("devices") or {})}
    if not wanted:
        return None
    raw: Raw = task.client.get("instances", task.name, within=task.deadline).metadata
    sight = look(task.client, task.deadline, raw)
    pid = sight.init_of(task.name)
    if pid is None:
        return None  # it went down, or lives on another machine
    for name, folder in folders.items():
        seen = identity_inside(pid, task.spec["devices"][name]["path"])
        if seen is not None and seen != folder:
            _put_quietly(task, name, None)
            why = "its folder was exchanged for another one meanwhile: unplugged again"
            raise Refused(Problem(f"{name}: {why}", subject=str(task.step.id)))
    missing = sight.missing(raw)
    for name in sorted(wanted & missing.keys()):
        raise GuestFailed(
            Problem(
                f"{name}: LXD says that it is plugged in, but {missing[name]}",
                subject=str(task.step.id),
                hint="apply again plugs it in anew",
            )
        )
    return raw


def _in_the_way(wanted: Mapping[str, Device], there: Mapping[str, Device], names: Collection[str]) -> list[str]:
    """Those of these devices that stand where another one of them is to be."""
    found = []
    for place in ("path", "listen"):
        goals = {wanted[name].get(place): name for name in names if name in wanted}
        found += [
            name
            for name in names
            if name in wanted and (at := there.get(name, {}).get(place)) and goals.get(at, name) != name
        ]
    return sorted(set(found))


def _as_lxd_has_it(task: Task, raw: Raw, name: str, device: Device, there: Device | None) -> dict[str, str]:
    """One device that is wanted, with what we add by ourselves; as it is when nothing else about it changes."""
    if there is not None and there == {**device, "shift": there.get("shift")}:
        return dict(there)
    config = {**raw["expanded_config"], **terms.config_of(task.spec)}
    return shares.with_owners(task, name, device, read_bool(config.get("security.privileged", "")))


def _settle_one(
    task: Task, raw: Raw, name: str, before: Device | None, whole: Change_ | None, unused: list[Reply]
) -> bool:
    """Whether there was anything to do. unused: the reading to begin with, until something is written."""
    wanted = (task.spec.get("devices") or {}).get(name)
    device = _as_lxd_has_it(task, raw, name, wanted, before) if wanted else None
    lame = any(one.path[1:2] == (name,) and _is_lame(one.path, one.op, one.old) for one in task.step.changes)
    if device == before and not lame:
        return False
    task.tell(f"plugging in {name}" if device else f"unplugging {name}")
    try:
        first = unused.pop() if unused else None
        if lame and before:
            _put(task, name, None, before, None, first)
            first = None
        _plug_in(task, name, device, before, whole, first)
    except Refused as error:
        back = _put_back(task, name, before)
        raise Refused(_explained(task, name, error.problem, back)) from error
    return True


def _plug_in(
    task: Task, name: str, device: Device | None, before: Device | None, whole: Change_ | None, first: Reply | None
) -> None:
    try:
        _put(task, name, device, before, whole, first)
    except Refused as error:
        if device is None or "shift" not in device or shares.UNSHIFTED not in error.problem.summary:
            raise
        if task.client.owners is not None:
            task.client.owners.refuse([device["source"]])
        plain = {key: value for key, value in device.items() if key != "shift"}
        _put_quietly(task, name, None)  # LXD has taken the old one out already, and would see no difference
        _put(task, name, plain, None, whole)


def _is_lame(path: tuple[str, ...], op: str, old: Any) -> bool:
    """Whether the change is about a device that the config has and the container has not."""
    if path[:1] != ("devices",):
        return False
    typeless = len(path) == 2 and isinstance(old, Mapping) and "type" not in old
    return typeless or (path[2:] == ("type",) and op == "add")


def _put(
    task: Task,
    name: str,
    device: Device | None,
    before: Device | None,
    whole: Change_ | None = None,
    first: Reply | None = None,
) -> None:
    """Have that one device as given, or not at all, and the rest as it is, or as ``whole`` makes it. before: as was."""

    def change(raw: Raw) -> dict[str, Any] | None:
        if (raw["devices"] or {}).get(name) not in (before, device, None):
            raise Interrupted(Problem(f"{name} was changed by somebody else meanwhile", hint="plan again"))
        return whole(raw) if whole else _replaced(raw, {name: device})

    edit(task, ("instances", task.name), change, first)


def _replaced(raw: Raw, devices: Mapping[str, Device | None]) -> dict[str, Any] | None:
    body = {key: raw[key] for key in BODY}
    kept = {name: device for name, device in (raw["devices"] or {}).items() if name not in devices}
    body["devices"] = kept | {name: dict(device) for name, device in devices.items() if device}
    return body if body["devices"] != raw["devices"] else None


def _put_back(task: Task, name: str, before: Device | None) -> str:
    """Plug the old one in again, which LXD has taken out and still shows. Says what came of it."""
    if before is None:
        with contextlib.suppress(BackendError):
            _put_quietly(task, name, None)
        return ""
    try:
        _put_quietly(task, name, None)
        _put_quietly(task, name, before)
    except BackendError as error:
        return f"the old one could not be plugged in again: {error.problem.summary}"
    return "the old one is plugged in again"


def _put_quietly(task: Task, name: str, device: Device | None) -> None:
    edit(task, ("instances", task.name), lambda raw: _replaced(raw, {name: device}))


def _explained(task: Task, name: str, problem: Problem, back: str) -> Problem:
    summary, hint = problem.summary, problem.hint
    listen = ((task.spec.get("devices") or {}).get(name) or {}).get("listen")
    if listen and (_IN_USE in summary or (_NO_LISTENER in summary and _is_taken(task, listen))):
        back = "\n".join(filter(None, (summary, back)))
        summary, hint = f"{listen} is taken by another program", f"see who: ss -lnp | grep {listen.rpartition(':')[2]}"
    return Problem(f"{name}: {summary}", subject=str(task.step.id), detail=back or None, hint=hint)


def _is_taken(task: Task, listen: str) -> bool:
    """Whether somebody listens there on this machine. Where that is busy, LXD says only that its forwarder ended."""
    protocol, _, place = listen.partition(":")
    address, port = split_listen(place)
    everywhere = ("0.0.0.0", "::")  # noqa: S104  compared with, not bound to
    return task.client.address.socket is not None and any(
        (one[0], str(one[2])) == (protocol, port) and (one[1] == address or {one[1], address} & {*everywhere})
        for one in open_here()
    )


def _check_serial(task: Task, name: str) -> None:
    """LXD learned to tell sticks apart by their serial number later than 5.0."""
    said = server(task.client, task.deadline)
    if "device_usb_serial" not in said["api_extensions"]:
        version = said["environment"]["server_version"]
        raise Refused(
            Problem(
                f"{name}: LXD {version} cannot choose a USB device by its serial number",
                subject=str(task.step.id),
                hint="leave serial out: the container gets every device with that vendor and product",
            )
        )
