"""APPLY for ``VirtualMachine``: one way to the goal from wherever it is; a crash is finished by coming again.

The record says ``pending`` before anything is touched and loses it at the very end.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from reconciler.backends.qemu import agent, kernels, process, provision
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.effects import TABLE
from reconciler.backends.qemu.folders import Folder, all_folders, folder_of, locked
from reconciler.backends.qemu.grace import Grace
from reconciler.backends.qemu.inside.disks import check as check_mounts
from reconciler.backends.qemu.inside.disks import unmount_unwanted
from reconciler.backends.qemu.machine import drives_of
from reconciler.backends.qemu.plugging import Live, note_missing, plug, unplug_unwanted
from reconciler.backends.qemu.preflight import check_live, check_start
from reconciler.backends.qemu.prepare import (
    Store,
    boot_line,
    drop_disks,
    is_volatile,
    make_disks,
    own_disks,
    prepare,
    take_images,
)
from reconciler.backends.qemu.records import Record, load, make_uuid, new_record, save
from reconciler.backends.qemu.settle import Settling, is_settled, settle
from reconciler.backends.qemu.shares import daemon
from reconciler.backends.qemu.shutdown import stop
from reconciler.effects import effect_of
from reconciler.model import Change, Desired, Effect, Power, ResourceId, Spec, Step, Verb
from reconciler.ports import Settings, Tell
from reconciler.problems import Locked, Problem, Refused

_LOCK_PATIENCE = 30.0
_ONLY_RECORD = frozenset({("owner",), ("recorded",)})
_PLUGGED = frozenset({"disks", "nics", "shares", "devices", "forwards"})
"""What goes in and out of a guest without any say in whether it is ready."""


@dataclass(frozen=True, slots=True)
class Machines:
    """The VMs of one state folder, and how patiently they are treated."""

    settings: Settings
    store: Store
    grace: Grace

    def folder(self, name: str) -> Folder:
        """Where the VM of that name is kept."""
        return folder_of(self.settings.state, self.settings.runtime, name)

    def apply(self, step: Step, desired: Desired | None, tell: Tell) -> None:
        """Carry out one step."""
        self._sweep()
        if step.verb is Verb.DELETE:
            self._delete(step.id.name, tell)
            return
        if desired is None:
            raise Refused(Problem("it is no longer declared", subject=str(step.id)))
        self._check(step, desired, tell)
        self._take_over_name(step, tell)
        folder = self.folder(step.id.name)
        if any(map(_concerns_guest, step.changes)):
            agent.expect(folder.agent, str(step.id))
        with locked(folder.path, str(step.id), _LOCK_PATIENCE):
            record = load(folder)
            if step.verb is Verb.REPLACE and record is not None:
                record = self._clear(folder, record, desired, tell)
            _Pass(self, folder, step, desired, tell).converge(record)

    def power(self, id: ResourceId, action: str, force: bool, tell: Tell) -> None:
        """start | stop | restart, as asked on the command line; what the manifest wants is not changed by it."""
        folder = self.folder(id.name)
        if load(folder) is None:
            raise Refused(Problem("there is no such VM", subject=str(id)))
        with locked(folder.path, str(id), _LOCK_PATIENCE):
            record = load(folder)
            if record is None or record.applied is None:
                raise Refused(Problem("it was never applied to the end", subject=str(id), hint="apply it"))
            spec = record.applied
            if action in ("stop", "restart"):
                record = stop(folder, record, self.grace, tell, force)
            if action in ("start", "restart"):
                record, spec = self._take_later(folder, record, spec)
                record = self.bring_up(folder, record, spec, tell)
                # What has to be put into the guest is not at hand here: the next apply finishes that.
                if not provision.due_files(spec, record.files):
                    settling = Settling(folder, spec, {}, tell, self.settings.timeout, self.settings.state)
                    save(folder, settle(settling, record))

    def _take_later(self, folder: Folder, record: Record, applied: Spec) -> tuple[Record, Spec]:
        """What waited for the guest to go down comes true now that it is down."""
        if record.later is None or process.find(folder, record) is not None:
            return record, applied
        spec = record.later
        record = drop_disks(folder, record.but(plugged={}), spec)
        return save(folder, record.but(applied=spec, later=None)), spec

    def bring_up(self, folder: Folder, record: Record, spec: Spec, tell: Tell) -> Record:
        """A guest whose CPUs run: started, or let go on when it was paused. The caller holds the lock."""
        if (running := process.find(folder, record)) is not None:
            record = save(folder, record.but(process=running))
            with Monitor(folder.qmp, record.id) as monitor:
                status = monitor.execute("query-status")["status"]
                if status == "running":
                    return record
                if status in ("paused", "suspended", "io-error"):
                    monitor.execute("system_wakeup" if status == "suspended" else "cont")
                    return record
            record = stop(folder, record, self.grace, tell)  # half started, or beyond help
        # What only a start needs, a change to a guest that runs does not wait for.
        from reconciler.backends.qemu.accelerator import choose
        from reconciler.backends.qemu.launch import Launch, start

        record, drives = prepare(folder, record, spec, self.store, tell)
        accelerator = choose(
            str(spec.get("accelerator", "auto")),
            self.settings.state,
            record.id,
            tell,
            folder.kernel if folder.kernel.exists() else None,
        )
        tell(f"starting ({accelerator})")
        if is_volatile(record, spec):
            record = record.but(files={})
        return start(Launch(folder, spec, drives, accelerator, boot_line(spec, record), tell), record)

    def _check(self, step: Step, desired: Desired, tell: Tell) -> None:
        """Before anything is made or stopped: refuse what cannot come up (again)."""
        folder, spec = self.folder(step.id.name), desired.spec
        check_mounts(spec, str(step.id))
        record = load(folder)
        if record is not None and step.verb is not Verb.REPLACE:
            if spec.get("power") == "stopped":
                return
            if process.find(folder, record) is not None and not _needs_rest(step, spec):
                check_live(spec, folder, self.store, str(step.id))
                return
        check_start(spec, folder, self.store, str(step.id), tell)

    def _take_over_name(self, step: Step, tell: Tell) -> None:
        """``metadata.renamedFrom``: stop the old one and carry its folder over to the new name."""
        rename = next((change for change in step.changes if change.path == ("metadata", "name")), None)
        if rename is None:
            return
        old, new = self.folder(str(rename.old)), self.folder(str(rename.new))
        if not old.exists():
            return  # done by an earlier try
        with locked(old.path, str(step.id), _LOCK_PATIENCE):
            record = load(old)
            if record is None or new.exists():
                raise Refused(Problem(f"both {old.name} and {new.name} are there", subject=str(step.id)))
            record = stop(old, record, self.grace, tell)
            save(old, record.but(pending="rename"))
            # From here on it is known by its new name; ``converge`` makes the record agree.
            old.path.rename(new.path)

    def _clear(self, folder: Folder, record: Record, desired: Desired, tell: Tell) -> Record:
        """Everything of the VM but its name, its user and the Disks that stand for themselves."""
        record = save(folder, record.but(pending="replace"))
        record = stop(folder, record, self.grace, tell)
        folder.clear()
        kernels.sweep(self.settings.state)
        blank = Record(
            record.id, self.settings.environment, record.uuid, record.birth, record.uid, desired.spec, "create"
        )
        return save(folder, blank)

    def _sweep(self) -> None:
        """Take away what a deletion that was killed at its very end left: folders without a record."""
        for folder in all_folders(self.settings.state, self.settings.runtime):
            if folder.record.exists():
                continue
            with suppress(Locked), locked(folder.path, folder.name, patience=0.0):
                if not folder.record.exists() and not process.is_alive(folder):
                    folder.remove()

    def _delete(self, name: str, tell: Tell) -> None:
        folder = self.folder(name)
        if not folder.exists():
            return
        with locked(folder.path, f"VirtualMachine/{name}", _LOCK_PATIENCE):
            record = load(folder)
            if record is not None:
                record = save(folder, record.but(pending="delete"))
                stop(folder, record, self.grace, tell)
            elif process.is_alive(folder):
                raise Refused(
                    Problem("a QEMU of it is alive, and its record is gone", subject=f"VirtualMachine/{name}")
                )
            folder.remove()
        kernels.sweep(self.settings.state)


@dataclass(frozen=True, slots=True)
class _Pass:
    """One create, update, restart or the second half of a replace. The VM's lock is held throughout."""

    machines: Machines
    folder: Folder
    step: Step
    desired: Desired
    tell: Tell

    @property
    def subject(self) -> str:
        return str(self.step.id)

    def converge(self, record: Record | None) -> None:
        """From wherever the machine is to where it is wanted."""
        spec, environment = self.desired.spec, self.machines.settings.environment
        if record is None:
            settings = self.machines.settings
            record = new_record(self.folder, settings.state, settings.runtime, environment, self.subject)
            record = save(self.folder, record.but(applied=spec, pending="create"))
        if record.id != self.subject:  # it was renamed
            uuid = make_uuid(self.machines.settings.state, environment, self.subject)
            record = save(self.folder, record.but(id=self.subject, uuid=str(uuid)))
        known_ready = record.pending is None and all(change.path[0] in _PLUGGED for change in self.step.changes)
        record = record.but(environment=environment, pending=record.pending or self.step.verb.value)
        record, status = self._in_place(record)
        if status is None:
            daemon.sweep(self.folder)
            record = drop_disks(self.folder, record.but(plugged={}), spec)
            record = save(self.folder, record.but(applied=spec, later=self.desired.later))
        if spec.get("power", "running") == "stopped":
            record, _ = prepare(self.folder, record, spec, self.machines.store, self.tell)
        else:
            record = self._up(record, status, known_ready)
        save(self.folder, record.but(pending=None))

    def _in_place(self, record: Record) -> tuple[Record, str | None]:
        """Changed as it runs, if it runs and what is to change does so under a guest; and what QEMU then says that it
        does. Else it is down, and says nothing."""
        running = process.find(self.folder, record)
        if running is not None and not _needs_rest(self.step, self.desired.spec):
            with Monitor(self.folder.qmp, record.id) as monitor:
                status = str(monitor.execute("query-status")["status"])
                # We were cut off before its CPUs ran: then nothing of it has been numbered, and it begins anew.
                if status != "prelaunch":
                    return self._change_live(monitor, record.but(process=running)), status
        record = save(self.folder, record)
        if running is not None:
            record = stop(self.folder, record, self.machines.grace, self.tell)
        return record, None

    def _change_live(self, monitor: Monitor, record: Record) -> Record:
        """Have the QEMU that runs be as wanted, in everything that can be changed under a guest.

        What goes out goes before the record says that it is not wanted; a crash in between leaves it to the next pass.
        The record is written before anything is done, and not again for what only follows from that.
        """
        spec, store, folder = self.desired.spec, self.machines.store, self.folder
        kept = frozenset(own_disks(record.applied or {}))
        record = take_images(folder, record, spec, store, self.tell)
        drives = drives_of(spec, record, folder, store.locate(spec))
        live = Live(folder, monitor, record, spec, drives, self.tell, True, self.machines.grace.device)
        live.record = unmount_unwanted(folder, live.record, spec, self.tell)
        unplug_unwanted(live, kept)
        record = drop_disks(folder, live.record, spec)
        live.record = record = record.but(applied=spec, later=self.desired.later)
        missing = note_missing(live)
        make_disks(drives, record)
        plug(live, missing)
        return live.record

    def _up(self, record: Record, status: str | None, known_ready: bool) -> Record:
        """Running (or paused, once it has run), with files and commands done, and ready. status: as QEMU says it."""
        spec, machines = self.desired.spec, self.machines
        paused, is_well = spec.get("power") == "paused", known_ready and record.settled == record.process
        if not is_well:
            record = save(self.folder, record)  # a guest may take minutes
        if not (paused and is_settled(record, spec) and status is not None):
            if status != "running":
                record = machines.bring_up(self.folder, record, spec, self.tell)
            limit, state = machines.settings.timeout, machines.settings.state
            settling = Settling(self.folder, spec, self.desired.payload, self.tell, limit, state, known_ready)
            record = settle(settling, record)
        if status is not None and not is_well:
            from reconciler.backends.qemu.plugging.resizing import resize

            resize(self.folder, record, spec, self.tell, machines.grace.follow)
        if paused:
            self._pause(record)
        return record

    def _pause(self, record: Record) -> None:
        with Monitor(self.folder.qmp, record.id) as monitor:
            monitor.execute("stop")


def _concerns_guest(change: Change) -> bool:
    """Whether something is to be mounted or unmounted in the guest."""
    if change.path[0] == "disks":
        return change.op != "add" or (isinstance(change.new, Mapping) and "mount" in change.new)
    return change.path[0] == "shares"


def _needs_rest(step: Step, spec: Spec) -> bool:
    """Whether what the step changes cannot be changed under a running guest."""
    if step.verb is Verb.RESTART or spec.get("power") == "stopped":
        return True
    changes = [change for change in step.changes if change.path not in _ONLY_RECORD]
    effects = [effect_of(change, "VirtualMachine", Power.RUNNING, TABLE).effect for change in changes]
    return any(effect.severity >= Effect.RESTART.severity for effect in effects)
