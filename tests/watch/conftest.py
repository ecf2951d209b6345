"""The real ``reconciler watch`` over a private LXD and real QEMUs; tests wait for facts that they are told."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd import daemon
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.qemu.client import Monitor
from tests.support.qemu import IDLE_SAYS, idle_disk, remains

COMMAND = [sys.executable, "-m", "reconciler.cli"]
IMAGE = """
apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox}
spec: {type: container, source: {build: {recipe: busybox}}}
"""
IDLE = """
apiVersion: reconciler/v1
kind: Image
metadata: {name: idle}
spec: {type: virtual-machine, source: {file: ./idle.img, format: raw}}
"""
PATIENCE = 180.0


class Watch:
    """One running ``reconciler watch``. Its events come as JSON lines on stderr; nothing else may stand there."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._news = threading.Condition()
        self._read = 0
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def until(self, reason: str, resource: str = "", words: str = "") -> dict[str, Any]:
        """The next event of that kind behind the last one that was waited for."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while True:
                for at in range(self._read, len(self.events)):
                    one = self.events[at]
                    if one["reason"] == reason and one["resource"] == resource and words in one["message"]:
                        self._read = at + 1
                        return one
                assert self._news.wait(deadline - time.monotonic()), f"no {reason} {resource}:\n{self}"

    def kill(self) -> None:
        """It is gone at once, whatever it was doing."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def skip(self) -> None:
        """What was told until now does not count any more."""
        with self._news:
            self._read = len(self.events)

    def reasons(self, resource: str) -> list[str]:
        """Everything that was told of it since it was last waited for."""
        return [one["reason"] for one in self.events[self._read :] if one["resource"] == resource]

    def _follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                if line.startswith("{"):
                    self.events.append(json.loads(line))
                else:
                    self.other.append(line)
                self._news.notify_all()

    def __str__(self) -> str:
        told = [f"{one['at']} {one['resource']} {one['reason']}: {one['message']}" for one in self.events]
        return "\n".join([*told, *self.other])


@dataclass(frozen=True, slots=True)
class Place:
    """A machine with its own state folder and LXD, and a folder of manifests that is watched."""

    state: Path
    folder: Path
    client: Client
    environment: dict[str, str]

    def save(self, name: str, text: str) -> None:
        """As careful editors do: written beside it, then renamed."""
        beside = self.folder / f".{name}.new"
        beside.write_text(text)
        beside.replace(self.folder / name)

    def container(self, name: str, **spec: Any) -> str:
        """A manifest of a busybox container, saved."""
        full = {"image": "busybox", "deletionPolicy": "delete", **spec}
        document = {"apiVersion": "reconciler/v1", "kind": "Container", "metadata": {"name": name}, "spec": full}
        self.save(f"{name}.yaml", json.dumps(document))
        return f"Container/{name}"

    def machine(self, name: str, **spec: Any) -> str:
        """A manifest of a VM that needs no kernel, saved, and of its image."""
        if not (self.folder / "idle.img").exists():
            (self.folder / "idle.img").write_bytes(idle_disk())
            self.save("idle.yaml", IDLE)
        full = {
            "accelerator": "tcg",
            "memory": "64MiB",
            "guestAgent": False,
            "deletionPolicy": "delete",
            "disks": [{"name": "root", "image": "idle"}],
            "ready": {"log": IDLE_SAYS, "timeout": "120s"},
            **spec,
        }
        document = {"apiVersion": "reconciler/v1", "kind": "VirtualMachine", "metadata": {"name": name}, "spec": full}
        self.save(f"{name}.yaml", json.dumps(document))
        return f"VirtualMachine/{name}"

    def environment_yaml(self, **spec: Any) -> None:
        """The folder's environment.yaml, which lists every other file."""
        names = sorted(f"./{path.name}" for path in self.folder.glob("*.yaml") if path.name != "environment.yaml")
        document = {"apiVersion": "reconciler/v1", "kind": "Environment", "metadata": {"name": "watched"}}
        self.save("environment.yaml", json.dumps({**document, "spec": {"resources": names, **spec}}))

    def run(self, *words: str, code: int = 0) -> str:
        """Another command of a person; what it says."""
        done = self._run(words)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def out(self, *words: str) -> str:
        """Another command of a script; its result."""
        done = self._run(words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)

    def status(self) -> dict[str, Any]:
        """What ``reconciler status`` says."""
        done = subprocess.run(
            [*COMMAND, "status", "-o", "json"], env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        return dict(json.loads(done.stdout))

    def until_status(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """``reconciler status``, once it says so: what LXD tells late is looked at first, and that takes a moment."""
        deadline = time.monotonic() + PATIENCE
        while not holds(told := self.status()):
            assert time.monotonic() < deadline, told
        return told

    @contextlib.contextmanager
    def watching(self, *words: str, paths: Sequence[str] | None = None, **extra: str) -> Iterator[Watch]:
        """``reconciler watch`` over the folder, until the end of the block: then it is told to end, and does."""
        watch = self.begin(*words, paths=paths, **extra)
        try:
            yield watch
            watch.process.terminate()
            assert watch.process.wait(120) == 0, str(watch)
            assert not watch.other, str(watch)
        finally:
            watch.kill()

    def begin(self, *words: str, paths: Sequence[str] | None = None, **extra: str) -> Watch:
        """The same, and whoever calls it ends it."""
        what = [str(self.folder)] if paths is None else list(paths)
        command = [*COMMAND, "watch", *what, "--log-format", "json", *words]
        environment = {**self.environment, **extra}
        return Watch(
            subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )

    def raw(self, name: str) -> dict[str, Any]:
        """A container as LXD has it."""
        return dict(self.client.get("instances", name).metadata)

    def init(self, name: str) -> int:
        """The pid of the container's init, as this machine sees it."""
        return int(self.client.get("instances", name, "state").metadata["pid"])

    def qemu(self, name: str) -> int:
        """The pid of the VM's QEMU."""
        return int(json.loads((self.state / "vms" / name / "record.json").read_text())["process"]["pid"])

    def ask(self, name: str, command: str, **arguments: Any) -> Any:
        """Somebody else uses the VM's monitor for people."""
        with Monitor(self.state / "run" / "vms" / name / "people.sock", "people") as monitor:
            return monitor.execute(command, arguments)

    def set_config(self, name: str, **config: str) -> None:
        """Somebody else changes the container by hand."""
        body = {"config": {key.replace("_", "."): value for key, value in config.items()}}
        self.client.patch(("instances", name), body, Deadline.after(PATIENCE))

    def delete(self, name: str) -> None:
        """Somebody else deletes the container by hand: with its stop, so that nobody starts it between the two."""
        self.client.patch(("instances", name), {"ephemeral": True}, Deadline.after(PATIENCE))
        order = {"action": "stop", "force": True, "timeout": 10}
        self.client.put(("instances", name, "state"), order, Deadline.after(PATIENCE))


@pytest.fixture(scope="session")
def machine() -> Iterator[Place]:
    """The private LXD, once a session; nothing of it or of any QEMU is left at the end."""
    state = Path(tempfile.mkdtemp(prefix="rw"))
    running = daemon.start(state / "lxd")
    client = Client(Address(socket=running.socket))
    daemon.preseed(client)
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(state), "LXD_SOCKET": str(running.socket)}
    yield Place(state, state, client, environment)
    client.close()
    daemon.stop(state / "lxd")
    left = daemon.leftovers(state / "lxd") + remains(state)
    shutil.rmtree(state)
    assert not left, left


@pytest.fixture
def place(machine: Place, tmp_path: Path) -> Iterator[Place]:
    """A folder that declares the busybox image; whatever else a test makes is taken away after it."""
    folder = tmp_path / "manifests"
    folder.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    here = Place(machine.state, folder, machine.client, machine.environment)
    here.save("image.yaml", IMAGE)
    yield here
    left = [name for name in here.run("get", "-o", "name").split() if not name.startswith(("Host/", "Image/"))]
    for name in left:
        if name.startswith("VirtualMachine/"):
            here.run("stop", "--force", name)  # which would be waited for: these know of no power button
    if left:
        here.run("delete", "--yes", "--confirm-delete", *left)
    for path in (machine.state / "watch").glob("*.suspended"):
        path.unlink()
    for path in (machine.state / "run" / "watch").glob("*.sock"):
        assert not Path(f"/proc/{path.stem}").exists(), "a watch still runs"
        path.unlink()  # of one that a test had killed
