"""A private LXD for tests: the real daemon in a folder of its own, and the proof that nothing of it stays behind."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.backends.lxd import daemon
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.backend import LxdBackend
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.execution import Job, execute
from reconciler.model import Desired, Outcome, Plan, ResourceId, Result, Snapshot, World
from reconciler.observation import observe
from reconciler.planning import PlanOptions, plan
from reconciler.ports import Settings
from reconciler.problems import BackendError
from tests.support.needs import unordered
from tests.support.unique import own_net

ENVIRONMENT = "tests"
BUSYBOX = "busybox"
IDENTITY = "b" * 64


@dataclass(frozen=True, slots=True)
class PrivateLxd:
    """One running private LXD. state: the state folder of a reconciler that uses it as its embedded LXD."""

    state: Path
    daemon: daemon.Daemon
    prefix: str
    names: set[str] = field(default_factory=set)
    net: str = field(default_factory=own_net)
    """The first half of its networks' addresses: others on this machine have others."""

    @property
    def socket(self) -> Path:
        return self.daemon.socket

    @property
    def settings(self) -> Settings:
        return Settings(ENVIRONMENT, self.state, self.state / "run", timeout=180.0)

    def client(self) -> Client:
        """A new client; the caller closes it."""
        return Client(Address(socket=self.socket))

    def name(self, stem: str = "c") -> str:
        """A name that no other test and no other LXD on this machine uses; short enough for a bridge."""
        name = f"{self.prefix}{stem}{secrets.token_hex(2)}"
        self.names.add(name)
        return name


@contextmanager
def private_lxd() -> Iterator[PrivateLxd]:
    """Start one, with a pool and a default profile; stop it, and fail when anything of it is left."""
    state = Path(tempfile.mkdtemp(prefix="rt"))
    lxd = None
    try:
        lxd = PrivateLxd(state, daemon.start(state / "lxd"), f"rt{secrets.token_hex(2)}")
        client = lxd.client()
        daemon.preseed(client)
        client.close()
        yield lxd
    finally:
        daemon.stop(state / "lxd")
        left = remains(lxd, state)
        shutil.rmtree(state)
    assert not left, "\n".join(left)


def remains(lxd: PrivateLxd | None, state: Path) -> list[str]:
    """What can still be seen of it on this machine, in words."""
    folder = state / "lxd"
    inside = str(daemon.inside(folder))
    found = daemon.leftovers(folder)
    found += [line for line in Path("/proc/net/unix").read_text().splitlines() if inside in line or f"{state}/" in line]
    names = lxd.names if lxd else set()
    found += [f"interface {link.name}" for link in Path("/sys/class/net").iterdir() if link.name in names]
    groups = [*Path("/sys/fs/cgroup").glob("lxc.*"), *Path("/sys/fs/cgroup").glob("*/lxc.*")]
    found += [f"cgroup {group}" for group in groups if group.name.rpartition(".")[2] in names]
    return found


class Lab:
    """The engine on one private LXD: what tests say is converged, and can be looked at afterwards."""

    def __init__(self, lxd: PrivateLxd, backend: LxdBackend) -> None:
        self.lxd = lxd
        self.backend = backend
        self.client = backend.client
        self.told: list[str] = []

    @property
    def net(self) -> str:
        """The first half of addresses for networks that are made here."""
        return self.lxd.net

    def forget_owners(self) -> None:
        """What LXD refused to map is tried again, as after it was started anew."""
        self.client.owners = None
        (self.lxd.settings.state / "lxd-owners.json").unlink(missing_ok=True)

    def desired(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        needs: Sequence[ResourceId] = (),
        renamed_from: str | None = None,
        payload: Mapping[str, bytes] | None = None,
    ) -> Desired:
        """One wanted resource on this LXD."""
        old = ResourceId(kind, renamed_from) if renamed_from else None
        full = {"deletionPolicy": "delete", **spec}
        return Desired(
            ResourceId(kind, name), self.backend.name, full, tuple(needs), renamed_from=old, payload=payload or {}
        )

    def container(
        self,
        name: str,
        *,
        payload: Mapping[str, bytes] | None = None,
        needs: Sequence[ResourceId] = (),
        **spec: Any,
    ) -> Desired:
        """A wanted busybox container."""
        image = {"name": BUSYBOX, "identity": IDENTITY}
        base = {"power": "running", "image": image, "imagePolicy": "create"}
        return self.desired("Container", name, {**base, **spec}, needs, payload=payload)

    def plan(self, *wanted: Desired, prune: bool = False, adopt: bool = False) -> tuple[Plan, World]:
        """What would be done now."""
        backends = {self.backend.name: self.backend}
        world = observe(backends, None if prune else self._scope(wanted))
        tables = {self.backend.name: self.backend.effects()}
        options = PlanOptions(prune=prune, adopt=adopt, confirm_delete=True)
        return plan(ENVIRONMENT, {want.id: want for want in wanted}, world, tables, options), world

    def _scope(self, wanted: Sequence[Desired]) -> dict[str, set[ResourceId]]:
        about = {id for want in wanted for id in (want.id, *want.needs, *want.expects, want.renamed_from) if id}
        return {self.backend.name: about}

    def apply(self, *wanted: Desired, prune: bool = False, adopt: bool = False) -> list[Outcome]:
        """Do it; the outcomes, whatever they are."""
        assert not (missing := unordered(wanted)), "\n".join(missing)
        made, world = self.plan(*wanted, prune=prune, adopt=adopt)
        job = Job(
            made,
            {want.id: want for want in wanted},
            world,
            {self.backend.name: self.backend},
            lambda _id, _state, message: self.told.append(message),
        )
        return execute(job)

    def converge(self, *wanted: Desired, prune: bool = False, adopt: bool = False) -> list[Outcome]:
        """Do it, and see that all went well and that a second look finds nothing to do."""
        self.settle()
        outcomes = self.apply(*wanted, prune=prune, adopt=adopt)
        failed = [outcome.problem for outcome in outcomes if outcome.result not in (Result.APPLIED, Result.UNCHANGED)]
        assert not failed, "\n".join(map(str, failed))
        again, _ = self.plan(*wanted, prune=prune)
        assert again.in_sync, [(step.id, step.verb, step.reason, step.changes) for step in again.work]
        return outcomes

    def look(self) -> Snapshot:
        """Everything there is."""
        return self.backend.observe()

    def raw(self, *path: str) -> dict[str, Any]:
        """An object as LXD has it."""
        return dict(self.client.get(*path).metadata)

    def init_start(self, name: str) -> str:
        """When the container's init began, in clock ticks: a restart cannot hide from it."""
        pid = self.raw("instances", name, "state")["pid"]
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]

    def inside(self, name: str, *words: str) -> str:
        """What a command in the container says."""
        from reconciler.backends.lxd.session import capture

        code, output = capture(self.client, name, words, Deadline.after(60))
        assert code == 0, output
        return output.decode()

    def settle(self) -> None:
        """Wait for what LXD is still doing: the orders of a dead apply are carried out, whoever plans meanwhile.

        Without it an apply right after a kill may refuse, once, because the object moved after it was planned.
        """
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            running = self.client.get("operations", recursion="1").metadata or {}
            if not any(one["class"] == "task" for one in running.get("running", ())):
                return
            time.sleep(0.02)

    def sweep(self) -> None:
        """Remove what a test left; the image stays."""
        if self.client.address.project and self.client.find("projects", self.client.address.project) is None:
            return
        within = Deadline.after(60)
        order = {"state": {"action": "stop", "force": True, "timeout": 10}}
        self._try_put(("instances",), order, within)
        for name in [one["name"] for one in self.client.get("instances", recursion="1").metadata]:
            body = {"config": {"security.protection.delete": "false"}}
            self.client.patch(("instances", name), body, within)
            self.client.delete(("instances", name), within)
        for pool in self.client.get("storage-pools", recursion="1").metadata:
            self._delete_all("storage-pools", pool["name"], "volumes", "custom")
        self._delete_all("networks", keep=lambda one: not one["managed"])
        self._delete_all("profiles", keep=lambda one: one["name"] == "default")
        self._delete_all("projects", keep=lambda one: one["name"] in ("default", self.client.address.project))
        self._delete_all("storage-pools", keep=lambda one: one["name"] == "default")
        self._delete_all("images", "aliases", keep=lambda one: one["name"] == BUSYBOX)
        for image in self.client.get("images", recursion="1").metadata:
            if not image["aliases"]:
                self.client.delete(("images", image["fingerprint"]), within)

    def _delete_all(self, *path: str, keep: Any = lambda _one: False) -> None:
        for one in self.client.get(*path, recursion="1").metadata:
            if not keep(one):
                self.client.delete((*path, one["name"]), Deadline.after(60))

    def _try_put(self, path: tuple[str, ...], body: Any, within: Deadline) -> None:
        with suppress(BackendError):
            self.client.put(path, body, within)


class Crash(BaseException):
    """Our own process died here; nothing of ours may catch it."""


@contextmanager
def crash_at(client: Client, write: int, replied: bool) -> Iterator[list[str]]:
    """Die at that write (counted from 1): before it is sent, or after LXD got it and before we hear of it.

    The list that comes back names the request that it happened at; it stays empty when there are not so many.
    """
    real, count = client._send, 0
    died: list[str] = []

    def send(method: str, *rest: Any, **more: Any) -> Any:
        nonlocal count
        if died:
            raise Crash  # the dead do nothing more
        count += 1
        if count != write:
            return real(method, *rest, **more)
        died.append(f"{method} {rest[0]}")
        with suppress(BackendError):
            if replied:
                real(method, *rest, **more)
        raise Crash

    client._send = send  # type: ignore[method-assign]
    try:
        yield died
    finally:
        client._send = real  # type: ignore[method-assign]


@contextmanager
def lab_on(lxd: PrivateLxd, host: Mapping[str, Any] | None = None, name: str = "lxd/local") -> Iterator[Lab]:
    """A Lab on that LXD; what is made in it is removed at the end."""
    backend = LxdBackend(name, host or {"socket": str(lxd.socket)}, lxd.settings)
    lab = Lab(lxd, backend)
    try:
        yield lab
    finally:
        try:
            lab.sweep()
        finally:
            backend.close()


@contextmanager
def stocked_lxd() -> Iterator[PrivateLxd]:
    """A private LXD that holds the busybox image."""
    with private_lxd() as started:
        with lab_on(started) as lab:
            lab.converge(busybox_image(lab))
        yield started


def busybox_image(lab: Lab) -> Desired:
    """The image that every test's containers are made from."""
    source = {"build": {"recipe": "busybox"}}
    return lab.desired("Image", BUSYBOX, {"type": "container", "source": source, "identity": IDENTITY})
