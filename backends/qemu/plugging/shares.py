"""APPLY: shares, plugged in and out: a virtiofsd on one end of a line, a virtio device on the other.

Mounting in the guest comes last, and when the guest can be asked: see ``settle``. Unmounting comes first; but never
while the daemon is dead, for whoever unmounts waits for its answer: then the device goes, and takes what waits along.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.inside import shares as inside
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.shares import cold, daemon
from reconciler.backends.qemu.shares.daemon import Place
from reconciler.backends.qemu.shares.source import opened_source
from reconciler.model import Json, Spec
from reconciler.problems import BackendError, Interrupted, Refused, Unreachable

SECTION, PREFIX = "shares", "share-"
VIRTIOFS, NINEP = "virtiofs", "9p"
_QUEUE = 1024
_AGENT = 3.0
"""Seconds for the agent of a guest that runs to show that it listens."""


def declared(live: Live) -> Mapping[str, Spec]:
    """By name."""
    found: Mapping[str, Spec] = live.spec.get(SECTION, {})
    return found


def part_of(live: Live, name: str, share: Spec) -> Json:
    """All of it, and by which way it gets into the guest."""
    return {**share, "transport": transport(live.record.plugged.get(f"{PREFIX}{name}"), live.booted)}


def transport(plugged: Spec | None, booted: bool) -> str:
    """virtiofs where there is a virtiofsd; a guest that was born with the other way keeps it while it runs."""
    if booted and plugged is not None:
        return str(plugged["transport"])
    return NINEP if cold.is_needed() and not booted else VIRTIOFS


def is_whole(live: Live, name: str) -> bool:
    """Whether its daemon lives and serves what it is to serve."""
    part = live.record.plugged[f"{PREFIX}{name}"]
    return part["transport"] == NINEP or daemon.is_whole(Place(live.folder, name), part)


def check(shares: Mapping[str, Spec], folder: Folder, subject: str, start: bool) -> None:
    """Refused, naming the field, when one can be seen not to be had; nothing is touched. start: QEMU is to be born."""
    inside.check(shares, subject)
    opened = cold.opened if start and cold.is_needed() else _opened
    for name, share in shares.items():
        with opened(name, share, folder, subject):
            pass


def _opened(name: str, share: Spec, folder: Folder, subject: str) -> AbstractContextManager[int]:
    return opened_source(name, share["source"], folder, subject)


def plug(live: Live, name: str, part: Json) -> None:
    """The daemon, the line between it and QEMU, the device at last."""
    place, id = Place(live.folder, name), f"{PREFIX}{name}"
    if part["transport"] == NINEP:
        live.plug({"driver": "virtio-9p-pci", "id": id, "fsdev": id, "mount_tag": inside.tag_of(name)})
        return
    _drop_line(live, id)  # what a try that was cut off has left
    daemon.end(place, live.subject)
    live.tell(f"sharing {part['source']}")
    with opened_source(name, part["source"], live.folder, live.subject) as source:
        line = daemon.start(place, source, part, live.subject)
    with line:
        live.monitor.execute_with(line.fileno(), "getfd", {"fdname": id})
    address = {"type": "fd", "data": {"str": id}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    try:
        live.monitor.execute("chardev-add", {"id": id, "backend": backend})
        live.plug(
            {"driver": "vhost-user-fs-pci", "id": id, "chardev": id, "tag": inside.tag_of(name), "queue-size": _QUEUE}
        )
    except Refused:
        alive = daemon.is_alive(place)
        words = daemon.died(place, live.subject)
        _drop_line(live, id)
        daemon.end(place, live.subject)
        if alive:
            raise
        raise words from None


def unplug(live: Live, name: str, part: Json) -> None:
    """Out of the guest's tree of folders, out of the machine, out of this world."""
    place, id = Place(live.folder, name), f"{PREFIX}{name}"
    lives = part["transport"] == NINEP or daemon.is_alive(place)
    if lives:
        _take_away(live, name)
    live.unplug(id)
    if not lives:
        _take_away(live, name)
    _drop_line(live, id)
    daemon.end(place, live.subject)


def _take_away(live: Live, name: str) -> None:
    """Have the guest unmount it, if it can be asked; it loses it in any case."""
    if not (live.booted and (live.record.applied or {}).get("guestAgent", True)):
        return
    with suppress(Unreachable, Interrupted), Agent(live.folder.agent, live.subject, _AGENT) as agent:
        try:
            inside.take_away(agent, name, live.subject, live.tell)
        except BackendError as error:
            live.tell(f"the guest did not unmount it: {error.problem.summary}")


def _drop_line(live: Live, id: str) -> None:
    """QEMU's end of it, whether it is in use or was only handed over."""
    for command, arguments in (("chardev-remove", {"id": id}), ("closefd", {"fdname": id})):
        try:
            live.monitor.execute(command, arguments)
        except Refused as error:
            if "not found" not in error.problem.summary:
                raise
