"""QEMU for tests: the engine on real QEMUs in a state folder of its own, and the proof that nothing stays behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.backends.qemu import companions, kernels, process, records
from reconciler.backends.qemu.agent import Agent, Finished
from reconciler.backends.qemu.backend import QemuBackend
from reconciler.backends.qemu.folders import Folder, folder_of
from reconciler.backends.qemu.forwarding import keeper
from reconciler.backends.qemu.grace import Grace
from reconciler.backends.qemu.records import Process, Record
from reconciler.backends.qemu.shares import daemon
from reconciler.backends.qemu.sockets import listen
from reconciler.execution import Job, execute
from reconciler.model import QEMU, Change, Desired, Observed, Outcome, Plan, ResourceId, Result, Verb, World
from reconciler.observation import observe
from reconciler.planning import PlanOptions, plan, plan_delete
from reconciler.ports import Settings
from reconciler.problems import Problem
from tests.support.needs import unordered

ENVIRONMENT = "tests"
BUSYBOX = "busybox"
IDENTITY = "b" * 64
QUICK = Grace(agent=60.0, button=0.1, plug=30.0, device=60.0)
MIB = 1 << 20
IDLE_SAYS = "idle: up"


def idle_disk() -> bytes:
    """A disk whose boot sector says "idle: up" on the serial port and halts: a guest that is up in a blink."""
    code = bytes.fromhex("31c0 8ed8 be157c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")
    # Twice: the firmware's own last words may still be on their way, and come in between.
    sector = (code + (IDLE_SAYS.encode() + b"\r\n") * 2 + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    return sector.ljust(MIB, b"\0")


@dataclass(slots=True)
class Lab:
    """The engine on the QEMUs of one state folder: what tests say is converged, and can be looked at afterwards."""

    state: Path
    environment: str = ENVIRONMENT
    told: list[str] = field(default_factory=list)
    timeout: float = 180.0
    grace: Grace = QUICK

    @property
    def settings(self) -> Settings:
        return Settings(self.environment, self.state, self.state / "run", timeout=self.timeout)

    @property
    def backend(self) -> QemuBackend:
        return QemuBackend(self.settings, self.grace)

    def idle(self, name: str = "vm", **spec: Any) -> Desired:
        """A wanted VM that needs no kernel and takes no notice of its power button."""
        disk = self.state / "idle.img"
        if not disk.exists():
            disk.write_bytes(idle_disk())
        root = {"path": str(disk), "format": "raw", "readOnly": True}
        base = {"guestAgent": False, "ready": {"log": IDLE_SAYS, "timeout": 60}, "memory": {"size": 64 * MIB}}
        disks = {"root": root, **spec.pop("disks", {})}
        return self.machine(name, **{**base, **spec, "disks": disks})

    def busybox(self, name: str = "vm", **spec: Any) -> Desired:
        """A wanted Linux VM with a guest agent."""
        image = {"image": {"name": BUSYBOX, "identity": IDENTITY}}
        return self.machine(name, **{"boot": image, "ready": {"guestAgent": True, "timeout": 160}, **spec})

    def machine(
        self, name: str, *, payload: Mapping[str, bytes] | None = None, renamed_from: str | None = None, **spec: Any
    ) -> Desired:
        """A wanted VM with the schema's defaults."""
        defaults = {
            "power": "running",
            "cpus": {"count": 1},
            "memory": {"size": 192 * MIB},
            "machine": "q35",
            "accelerator": "tcg",
            "cpuModel": "max",
            "firmware": "bios",
            "guestAgent": True,
            "restart": "never",
            "imagePolicy": "create",
            "deletionPolicy": "delete",
        }
        return self.desired("VirtualMachine", name, {**defaults, **spec}, payload, renamed_from)

    def desired(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        payload: Mapping[str, bytes] | None = None,
        renamed_from: str | None = None,
    ) -> Desired:
        """One wanted resource."""
        old = ResourceId(kind, renamed_from) if renamed_from else None
        full = {"deletionPolicy": "delete", **spec}
        return Desired(ResourceId(kind, name), QEMU, full, renamed_from=old, payload=payload or {})

    def plan(self, *wanted: Desired, adopt: bool = False) -> tuple[Plan, World]:
        """What would be done now."""
        world = observe({QEMU: self.backend})
        tables = {QEMU: self.backend.effects()}
        options = PlanOptions(adopt=adopt, confirm_delete=True)
        return plan(self.environment, {want.id: want for want in wanted}, world, tables, options), world

    def apply(self, *wanted: Desired, adopt: bool = False) -> list[Outcome]:
        """Do it; the outcomes, whatever they are."""
        assert not (missing := unordered(wanted)), "\n".join(missing)
        made, world = self.plan(*wanted, adopt=adopt)
        return self._execute(made, world, {want.id: want for want in wanted})

    def converge(self, *wanted: Desired, adopt: bool = False) -> list[Verb]:
        """Do it, and see that all went well and that a second look finds nothing to do; the verbs."""
        outcomes = self.apply(*wanted, adopt=adopt)
        failed = [outcome.problem for outcome in outcomes if outcome.result not in (Result.APPLIED, Result.UNCHANGED)]
        assert not failed, "\n".join(map(str, failed))
        again, _ = self.plan(*wanted)
        assert again.in_sync, [(str(step.id), step.verb, step.reason, step.changes) for step in again.steps]
        return [outcome.step.verb for outcome in outcomes]

    def fail(self, *wanted: Desired) -> Problem:
        """Do it, and see that it fails; why."""
        problems = [outcome.problem for outcome in self.apply(*wanted) if outcome.result is Result.FAILED]
        assert problems and problems[0] is not None
        return problems[0]

    def verbs(self, *wanted: Desired) -> list[Verb]:
        """What would be done now, in short."""
        return [step.verb for step in self.plan(*wanted)[0].steps]

    def changes(self, want: Desired) -> tuple[Change, ...]:
        """What would be changed of it now."""
        return next(step.changes for step in self.plan(want)[0].steps)

    def delete(self, *ids: ResourceId) -> list[Outcome]:
        """Delete them."""
        world = observe({QEMU: self.backend})
        made = plan_delete(self.environment, dict.fromkeys(ids, QEMU), world, PlanOptions(confirm_delete=True))
        return self._execute(made, world, {})

    def _execute(self, made: Plan, world: World, desired: Mapping[ResourceId, Desired]) -> list[Outcome]:
        def tell(_id: ResourceId, _state: str, message: str) -> None:
            self.told.append(message)

        return execute(Job(made, desired, world, {QEMU: self.backend}, tell))

    def look(self, want: Desired | str = "vm") -> Observed:
        """One VM as it is now."""
        id = want.id if isinstance(want, Desired) else ResourceId("VirtualMachine", want)
        return self.backend.observe().resources[id]

    def folder(self, name: str = "vm") -> Folder:
        """Where the VM is kept."""
        return folder_of(self.state, self.state / "run", name)

    def record(self, name: str = "vm") -> Record:
        """What is remembered of it."""
        record = records.load(self.folder(name))
        assert record is not None
        return record

    def process(self, name: str = "vm") -> Process:
        """Its live QEMU."""
        found = process.find(self.folder(name), self.record(name))
        assert found is not None, "no QEMU of it is alive"
        return found

    def signal(self, number: signal.Signals, name: str = "vm") -> Process:
        """Send its QEMU a signal; for SIGKILL, until it is gone."""
        running = self.process(name)
        os.kill(running.pid, number)
        if number is signal.SIGKILL:
            assert process.wait_gone(running, 60)
        return running

    def serial(self, name: str = "vm") -> str:
        """Everything that its guest ever said."""
        return self.folder(name).serial_log.read_text(errors="replace")

    def inside(self, *words: str, name: str = "vm") -> str:
        """What a command in the guest says; it has to end well."""
        done = self.ask(*words, name=name)
        assert done.code == 0, done
        return done.out.decode().strip()

    def ask(self, *words: str, name: str = "vm") -> Finished:
        """How a command in the guest ends."""
        with Agent(self.folder(name).agent, name, patience=60) as agent:
            return agent.run(words, 60.0)

    def boot_id(self, name: str = "vm") -> str:
        """Another one after every boot of the guest's kernel."""
        return self.inside("cat", "/proc/sys/kernel/random/boot_id", name=name)

    def servers(self, share: str = "data", name: str = "vm") -> list[int]:
        """The processes that serve the share: virtiofsd, and the one that it has put into a sandbox."""
        return companions.holders(daemon.Place(self.folder(name), share).served)

    def daemons(self, share: str = "data", name: str = "vm") -> list[int]:
        """The same, and the relay between QEMU and them."""
        return companions.holders(daemon.Place(self.folder(name), share).alive)

    def sweep(self) -> None:
        """Remove what a test left: by force what does not answer."""
        for name in sorted(path.name for path in (self.state / "vms").glob("*") if path.is_dir()):
            record = records.load(self.folder(name))
            running = process.find(self.folder(name), record) if record else None
            if running is not None and record is not None:
                process.kill(running, record)
            daemon.sweep(self.folder(name))
            keeper.end(self.folder(name))
            self.folder(name).remove()
        kernels.sweep(self.state)


def busybox_image(lab: Lab, name: str = BUSYBOX, identity: str = IDENTITY) -> Desired:
    """The image that Linux VMs are made from."""
    source = {"build": {"recipe": "busybox"}}
    return lab.desired("Image", name, {"type": "virtual-machine", "source": source, "identity": identity})


def share(source: Path, path: str = "/mnt/data", read_only: bool = False) -> dict[str, Any]:
    """One of ``spec["shares"]``."""
    return {"source": str(source), "readOnly": read_only, "path": path}


def give_address(lab: Lab, address: str) -> None:
    """By hand, to the card that the VM began with: once DHCP, which empties a card when it begins, has been ended."""
    ended = "until killall udhcpc 2>/dev/null; do usleep 50000; done; while pidof udhcpc; do usleep 50000; done"
    lab.inside("sh", "-c", f"{ended}; ip addr add {address} dev eth0; ip link set eth0 up")


def files(contents: Mapping[str, bytes], mode: str = "0644") -> tuple[dict[str, Any], dict[str, bytes]]:
    """``spec["files"]`` and the payload behind it."""
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in contents.items()}
    spec = {path: {"sha256": digest, "mode": mode, "owner": "0:0"} for path, digest in digests.items()}
    return spec, {digests[path]: data for path, data in contents.items()}


@contextmanager
def lab_in(images: Path | None = None, environment: str = ENVIRONMENT) -> Iterator[Lab]:
    """A Lab in a folder of its own; ``images``: an image store to share. Fails when anything is left at the end."""
    state = Path(tempfile.mkdtemp(prefix="rt-qemu-"))
    lab = Lab(state, environment)
    if images is not None:
        (state / "images").symlink_to(images)
    try:
        yield lab
        lab.sweep()
        left = remains(state)
    finally:
        for pid in holders(state):
            os.kill(pid, signal.SIGKILL)
        process.reap()
        shutil.rmtree(state)
    assert not left, "\n".join(left)


def remains(state: Path) -> list[str]:
    """What can still be seen of the VMs of that state folder on this machine, in words."""
    process.reap()
    found = [f"process {pid} holds files of {state}" for pid in holders(state)]
    found += [line for line in Path("/proc/net/unix").read_text().splitlines() if f"{state}/" in line]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{state}/" in line]
    for part in ("vms", "run/vms", "boot"):
        found += [str(path) for path in (state / part).glob("*")]
    return found


def holders(state: Path) -> list[int]:
    """Processes other than this one that have a file of that folder open: a QEMU always has."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _holds(entry, str(state.resolve())):
            found.append(int(entry.name))
    return found


def _holds(entry: Path, state: str) -> bool:
    try:
        return any(os.readlink(link).startswith(f"{state}/") for link in (entry / "fd").iterdir())
    except OSError:
        return False


@contextmanager
def bare_qemu(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A QEMU without a machine, for what concerns only its monitor: (process, socket)."""
    path = folder / "qmp"
    command = ["qemu-system-x86_64", "-M", "none", "-S", "-nodefaults", "-display", "none", *more]
    with listen(path) as server:
        handle = server.fileno()
        monitor = ["-chardev", f"socket,id=m,fd={handle},server=on,wait=off", "-mon", "chardev=m,mode=control"]
        child = subprocess.Popen([*command, *monitor], pass_fds=[handle], stderr=subprocess.DEVNULL)
    try:
        yield child, path
    finally:
        child.send_signal(signal.SIGCONT)
        child.kill()
        child.wait()
