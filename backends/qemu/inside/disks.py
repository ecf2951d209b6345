"""APPLY, inside the guest: ``Disk.mount``: its disks formatted when they are blank, mounted, grown, and unmounted.

``Record.mounted`` says what we have mounted; whether it still is, only the guest can tell, and is asked each time:

    id in QEMU's device tree → path (as declared) · at (where that really is) · source · start · size of the disk
                               formatting (begun, and not seen to its end) · smaller (why it did not grow)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.inside import blocks, growing, mounts
from reconciler.backends.qemu.inside.blocks import Block, Content, Node
from reconciler.backends.qemu.inside.mounting import await_agent
from reconciler.backends.qemu.readiness import Guest
from reconciler.backends.qemu.records import Record, save
from reconciler.diff import is_ignored
from reconciler.model import Json, Spec
from reconciler.ports import Tell
from reconciler.problems import Interrupted, Problem, Refused, Unreachable

PREFIX = "disk-"
_OPTIONS = ("nosuid", "nodev")
_PATIENCE = 5.0
"""Seconds for the agent of a guest that is up to answer, when something of it is to be unmounted."""
_LOOKS = 4
_POLITENESS = 1.0
"""The same, when nothing of ours is mounted there."""


def wanted(spec: Spec) -> dict[str, str]:
    """Which disks we are to mount: name → path. None in a guest without agent: there it is the guest's own business."""
    if not spec.get("guestAgent", True):
        return {}
    disks = {name: disk["mount"] for name, disk in spec.get("disks", {}).items() if "mount" in disk}
    return {name: str(path) for name, path in disks.items() if not _is_left(spec, name)}


def check(spec: Spec, subject: str) -> None:
    """Refused, before anything is touched, when one of them is to be mounted where it must not be."""
    for name, path in wanted(spec).items():
        mounts.check_path(path, f"disks.{name}.mount", subject)


def is_done(record: Record, spec: Spec) -> bool:
    """Whether all that is wanted was mounted, in the guest that runs."""
    paths = wanted(spec)
    if not paths:
        return True
    ours = {id.removeprefix(PREFIX): one.get("path") for id, one in record.mounted.items() if "at" in one}
    return record.settled == record.process and all(ours.get(name) == path for name, path in paths.items())


def mount_disks(guest: Guest, spec: Spec, tell: Tell, limit: float) -> Record:
    """Everything that is wanted is mounted, and fills its disk. A guest whose agent keeps silent is left to itself.

    limit: seconds that a guest which has just been started may take for its agent to answer. Raises Refused or
    GuestFailed, naming the field, at the first that cannot be mounted; what is on it is left as it is.
    """
    folder, record, paths = guest.folder, guest.record, wanted(spec)
    gone = [id for id in record.mounted if id.startswith(PREFIX) and id.removeprefix(PREFIX) not in paths]
    for id in gone:
        record = save(folder, record.but(mounted=_without(record.mounted, id)))
    if not paths:
        return record
    if record.settled != record.process:
        await_agent(guest, spec, tell, limit)
    with ExitStack() as stack:
        try:
            agent = stack.enter_context(Agent(folder.agent, record.id))
        except (Unreachable, Interrupted) as error:
            tell(f"disks are not mounted: {error.problem.summary}")
            return record
        for name in sorted(paths, key=lambda name: paths[name]):  # one may lie below another
            record = _Disk(agent, folder, record, name, tell, paths[name]).mount()
    return record


def unmount_unwanted(folder: Folder, record: Record, spec: Spec, tell: Tell) -> Record:
    """Unmount what is wanted at another path, or no longer. Refused when it is in use."""
    paths = wanted(spec)
    for id, one in record.mounted.items():
        name = id.removeprefix(PREFIX)
        if not id.startswith(PREFIX) or one.get("path") == paths.get(name) or _is_left(spec, name):
            continue
        if "at" in one and spec.get("guestAgent", True):
            save(folder, record)
            with _asked(folder, record.id, f"disks.{name}") as agent:
                if mounts.is_mounted(mounts.mounted(agent), one["at"], one["source"]):
                    tell(f"unmounting {one['at']}")
                    mounts.unmount(agent, one["at"], record.id)
        record = save(folder, record.but(mounted=_without(record.mounted, id)))
    return record


def leave(folder: Folder, record: Record, name: str, tell: Tell) -> Record:
    """Before the disk goes: nothing of it is mounted any more, whoever mounted it. Refused when it is in use.

    A guest whose agent keeps silent is only in the way when we have mounted the disk there.
    """
    id = f"{PREFIX}{name}"
    ours = "at" in record.mounted.get(id, {})
    try:
        with _asked(folder, record.id, f"disks.{name}", _PATIENCE if ours else _POLITENESS) as agent:
            _unmount_all(agent, record.id, name, tell)
    except Unreachable:
        if ours:
            raise
    return save(folder, record.but(mounted=_without(record.mounted, id)))


def grow(folder: Folder, record: Record, name: str, size: int, tell: Tell) -> Record:
    """The disk has grown under a guest that has it mounted: its partition and its file system follow.

    size: bytes of the disk. What cannot follow is written down as ``smaller``, and shows as a condition.
    """
    entry = record.mounted[f"{PREFIX}{name}"]
    try:
        with Agent(folder.agent, record.id, _PATIENCE) as agent:
            return _Disk(agent, folder, record, name, tell, str(entry["path"])).grow(size)
    except Unreachable as error:
        smaller = {**entry, "smaller": error.problem.summary}
        return save(folder, record.but(mounted={**record.mounted, f"{PREFIX}{name}": smaller}))


@dataclass(slots=True)
class _Disk:
    """One disk and where it is to be mounted, in a guest whose agent we are talking to."""

    agent: Agent
    folder: Folder
    record: Record
    name: str
    tell: Tell
    path: str

    @property
    def field(self) -> str:
        return f"disks.{self.name}.mount"

    @property
    def entry(self) -> Mapping[str, Any]:
        """What is remembered of it."""
        found: Mapping[str, Any] = self.record.mounted.get(f"{PREFIX}{self.name}", {})
        return found

    @property
    def serial(self) -> str:
        return self.name[:20]

    def mount(self) -> Record:
        """From whatever is on it to a file system that is mounted and fills the disk."""
        subject = self.record.id
        block = blocks.await_block(self.agent, self.serial, self.field, subject)
        table = mounts.mounted(self.agent)
        known = self.entry.get("at") if self.entry.get("path") == self.path else None
        at = next((at for at in (known, self.path) if at and self._is_there(table, block, at)), None)
        if at is None:
            self._check_free(table, self.path)
            node, type = self._file_system(block)
            at = mounts.make_folder(self.agent, self.path, subject)
            mounts.check_path(at, self.field, subject)
            if not self._is_there(table, block, at):
                self._check_free(table, at)
                self.tell(f"mounting {self.name} at {self.path}")
                options = [*_OPTIONS, *(["ro"] if block.disk.read_only else [])]
                mounts.mount(self.agent, node.path, type, at, options, subject)
            table = mounts.mounted(self.agent)
        return self._fill(block, table, at)

    def grow(self, size: int) -> Record:
        """The guest sees the new size, and uses it, if it still has the disk mounted."""
        block = blocks.await_block(self.agent, self.serial, self.field, self.record.id, size)
        table, at = mounts.mounted(self.agent), self.entry.get("at")
        return self._fill(block, table, at) if at and self._is_there(table, block, at) else self.record

    def _is_there(self, table: Mapping[str, mounts.Mount], block: Block, at: str) -> bool:
        return at in table and block.node(table[at].source) is not None

    def _check_free(self, table: Mapping[str, mounts.Mount], path: str) -> None:
        if path in table:
            what = f"{self.field}: {table[path].source} ({table[path].type}) is mounted at {path}"
            hint = "unmount that in the guest, or mount the disk elsewhere"
            raise Refused(Problem(what, subject=self.record.id, hint=hint))

    def _file_system(self, block: Block) -> tuple[Node, str | None]:
        """What is to be mounted, and its type; made if nothing at all is on the disk."""
        if block.held:
            raise self._refused(f"it is in use in the guest by {', '.join(block.held)}")
        block, found = self._contents(block)
        those = [node for node in block.nodes if found[node.name].is_file_system]
        if len(those) == 1:
            return those[0], found[those[0].name].type
        if those or block.partitions:
            what = "more than one file system" if those else "no file system"
            raise self._refused(f"{what} that could be meant: on it is {blocks.describe(block, found)}")
        content, again = found[block.disk.name], bool(self.entry.get("formatting"))
        unknown = content.type is None and content.table is None
        if not unknown or not (again or blocks.is_blank(self.agent, block.disk)):
            raise self._refused(f"it is not blank, and no file system: on it is {blocks.describe(block, found)}")
        return self._format(block.disk, again), "ext4"

    def _contents(self, block: Block) -> tuple[Block, dict[str, Content]]:
        """What is on it. Partitions of a disk that has just come show a moment after it."""
        for _ in range(_LOOKS):
            found = blocks.contents(self.agent, block)
            content = found[block.disk.name]
            if block.partitions or content.table is None or content.is_file_system:
                break
            Event().wait(0.5)
            block = blocks.await_block(self.agent, self.serial, self.field, self.record.id)
        return block, found

    def _format(self, disk: Node, again: bool) -> Node:
        if disk.read_only:
            raise self._refused("it is blank, and readOnly: there is nothing to mount")
        self.tell(f"formatting {self.name}")
        # Written down before: a file system that was cut off in the making is neither blank nor one.
        self._remember({"path": self.path, "formatting": True})
        blocks.format(self.agent, disk, self.name, again, self.field, self.record.id)
        return disk

    def _fill(self, block: Block, table: Mapping[str, mounts.Mount], at: str) -> Record:
        """Mounted at last: remembered so, with a file system as big as it can be."""
        node = block.node(table[at].source)
        if node is None:
            raise Interrupted(Problem(f"{self.field}: the guest has unmounted it again", subject=self.record.id))
        entry: dict[str, Json] = {"path": self.path, "at": at, "source": node.path, "size": block.disk.size}
        entry["start"] = node.start
        if not block.disk.read_only:
            # A partition follows only a disk that has grown since we have known it: others may want the room behind it.
            known = int(self.entry.get("size", block.disk.size))
            has_grown = known < block.disk.size or "smaller" in self.entry
            self._remember({**entry, "size": known})
            if why := self._follow(block, node, table[at].type, at, has_grown):
                self.tell(f"{self.name}: its file system is smaller than the disk: {why}")
                entry["smaller"] = why
        return self._remember(entry)

    def _follow(self, block: Block, node: Node, type: str, at: str, has_grown: bool) -> str | None:
        """Why the file system is smaller than its disk, None when it is not."""
        subject = self.record.id
        if has_grown and (why := growing.grow_partition(self.agent, block, node, self.field, subject)):
            return why
        if has_grown:
            block = blocks.await_block(self.agent, self.serial, self.field, subject)
            node = block.node(node.path) or node
        size = growing.read_size(self.agent, node)
        if (not has_grown and size is None) or (size is not None and node.size - size < growing.SLACK // 4):
            return None
        self.tell(f"growing the file system of {self.name}")
        why = growing.grow_file_system(self.agent, node, type, at, self.field, subject)
        return None if size is not None and node.size - size < growing.SLACK else why

    def _refused(self, what: str) -> Refused:
        hint = "only blank disks are formatted; look at it in the guest: what is not needed can be taken off it there"
        return Refused(Problem(f"{self.field}: {what}", subject=self.record.id, hint=hint))

    def _remember(self, entry: Mapping[str, Json]) -> Record:
        mounted = {**self.record.mounted, f"{PREFIX}{self.name}": dict(entry)}
        self.record = save(self.folder, self.record.but(mounted=mounted))
        return self.record


@contextmanager
def _asked(folder: Folder, subject: str, field: str, patience: float = _PATIENCE) -> Iterator[Agent]:
    """A session with an agent without whose word a disk is not let go of; Unreachable when it keeps silent."""
    with ExitStack() as stack:
        try:
            agent = stack.enter_context(Agent(folder.agent, subject, patience))
        except (Unreachable, Interrupted) as error:
            what = f"{field}: whether it is still mounted cannot be told: {error.problem.summary}"
            raise Unreachable(replace(error.problem, summary=what)) from error
        yield agent


def _unmount_all(agent: Agent, subject: str, name: str, tell: Tell) -> None:
    """Everything of that disk, what is mounted deepest first."""
    found = blocks.look_for_all(agent, name[:20])
    table = mounts.mounted(agent)
    used = [block for block in found if _paths(table, block) or block.held or block.mounted]
    if not used:
        return
    block = used[0]
    if len(found) > 1:  # which of them is to go cannot be told
        what = f"disks.{name}: {block.disk.name} in the guest has its serial number, as others have, and is in use"
        raise Refused(Problem(what, subject=subject, hint=f"unmount {block.disk.name} in the guest, then apply again"))
    if block.held:
        what = f"disks.{name} is in use in the guest by {', '.join(block.held)}"
        raise Refused(Problem(what, subject=subject, hint="it stays plugged in: end that use, then apply again"))
    for path in _paths(table, block):
        tell(f"unmounting {path}")
        mounts.unmount(agent, path, subject)
    if any(block.mounted for block in blocks.look_for_all(agent, name[:20])):
        what = f"disks.{name} is in use in the guest, mounted where its agent cannot see it"
        raise Refused(Problem(what, subject=subject, hint="does a container in the guest have it?"))


def _paths(table: Mapping[str, mounts.Mount], block: Block) -> list[str]:
    """Where it is mounted, deepest first."""
    return sorted((path for path, one in table.items() if block.node(one.source)), reverse=True)


def _is_left(spec: Spec, name: str) -> bool:
    """Whether the manifest leaves it to somebody else."""
    return is_ignored(f"disks.{name}.mount", tuple(str(path) for path in spec.get("ignore", ())))


def _without(mounted: Mapping[str, Json], id: str) -> dict[str, Json]:
    return {key: one for key, one in mounted.items() if key != id}
