"""APPLY, before a shared folder is mounted: which folder is meant, and whether the container may see its owners.

LXD opens a source by its path, links and all. So the folder is opened here first, without following any link, and
what LXD has mounted is compared with it afterwards: whoever changes the path in between gains nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.inside import Identity
from reconciler.backends.lxd.owners import Owners
from reconciler.backends.lxd.server import server
from reconciler.backends.lxd.terms.containers import SHARE
from reconciler.backends.lxd.terms.values import read_bool
from reconciler.beneath import open_beneath, refusal
from reconciler.problems import Problem, Refused

Device = Mapping[str, str]

UNSHIFTED = "idmapping abilities"
"""In what LXD says, plugging in or starting, when it cannot map owners after all, whatever it says of the kernel."""

_ROOT = Path("/")


def is_share(name: str, device: Device) -> bool:
    """Whether that device is a Share's: a raw disk device may have any source that the policy lets pass."""
    return name.startswith(SHARE) and device.get("type") == "disk" and device.get("source", "").startswith("/")


def identities(task: Task, names: Collection[str]) -> dict[str, Identity]:
    """The folder behind each of these shares. Raises Refused for one that is not a folder reached without links."""
    if task.client.address.socket is None:
        return {}  # the folder is on another machine
    wanted = task.spec.get("devices") or {}
    return {
        name: _identity(task, name, wanted[name]) for name in names if name in wanted and is_share(name, wanted[name])
    }


def with_owners(task: Task, name: str, device: Device, privileged: bool) -> dict[str, str]:
    """The device, with ``shift`` where that does no harm: then files keep their owners inside, and can be written.

    In a folder that ordinary users of the host can enter, the container's root could leave them a setuid program:
    there a writable share is never shifted.
    """
    asked = dict(device)
    known = task.client.owners
    if not is_share(name, device) or privileged or "shift" in device or known is None:
        return asked
    if task.client.address.socket is None:
        return asked  # from a VM, by virtiofs, which Linux does not map
    if known.may(device["source"]) and (read_bool(device.get("readonly", "")) or not _open_to_all(device["source"])):
        asked["shift"] = "true"
    return asked


def learn_owners(task: Task) -> None:
    """Find out, once for each client, what is to be known of its LXD."""
    if task.client.owners is None:
        task.client.owners = Owners(task.settings.state, server(task.client, task.deadline)["environment"])


def without_owners(client: Client, name: str, within: Deadline) -> None:
    """Take the shift out of a stopped container's shares again: this LXD cannot do it, and says so when it is tried."""
    devices = client.get("instances", name, within=within).metadata["devices"]
    shifted = {one: device for one, device in devices.items() if is_share(one, device) and "shift" in device}
    if client.owners is not None:
        client.owners.refuse([device["source"] for device in shifted.values()])
    plain = {one: {key: value for key, value in device.items() if key != "shift"} for one, device in shifted.items()}
    client.patch(("instances", name), {"devices": plain}, within)


def _identity(task: Task, name: str, device: Device) -> Identity:
    source, subject = Path(device["source"]), f"{task.step.id}: {name}"
    try:
        handle = open_beneath(_ROOT, source)
    except OSError as error:
        raise refusal(error, source, subject) from error
    try:
        found = os.fstat(handle)
    finally:
        os.close(handle)
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(Problem(f"{source}: it is not a folder", subject=subject))
    return found.st_dev, found.st_ino


def _open_to_all(source: str) -> bool:
    """Whether every user of the host can enter that folder."""
    path = Path(source)
    return all(one.stat().st_mode & stat.S_IXOTH for one in (path, *path.parents))
