"""The room's front door: LxdBackend satisfies ports.Backend and ports.Guests for one LXD."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from reconciler.backends.lxd import liveness
from reconciler.backends.lxd.address import Address, resolve_address
from reconciler.backends.lxd.ahead import begun
from reconciler.backends.lxd.client import Client, understood
from reconciler.backends.lxd.console import Console
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.effects import TABLE
from reconciler.backends.lxd.observe import Place, observe
from reconciler.backends.lxd.within import Reader
from reconciler.effects import Table
from reconciler.model import Condition, Desired, Observed, ResourceId, Snapshot, Spec, Step, lxd_backend
from reconciler.ports import Call, GuestFiles, Settings, Stop, Tell, Usage, Wake
from reconciler.problems import BackendError, Problem, Refused
from reconciler.sockets import Socket

ANSWER = 10.0
"""Seconds that LXD has to say what it is."""


class LxdBackend:
    """One LXD. Opening it does no I/O; the connection is made with the first question."""

    announces = True

    def __init__(
        self,
        name: str,
        host_spec: Spec,
        settings: Settings,
        find: Callable[[], Address] | None = None,
        read: Reader | None = None,
    ) -> None:
        """name: ``lxd/<host>``; host_spec: the Host's spec, or its ``lxd`` mapping alone.

        find: for an LXD whose address is not in its Host's spec and may change: says it, or raises Unreachable
        read: for an LXD inside of a VM: reads files of that VM
        """
        host = name.removeprefix("lxd/")
        self.name = lxd_backend(host)
        self._host = host
        self._spec: Spec = host_spec if "lxd" in host_spec else {"lxd": dict(host_spec), "deletionPolicy": "delete"}
        self._settings = settings
        self._find = find or partial(resolve_address, self._spec["lxd"], settings.state)
        self._moves = find is not None
        self._read = read
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._table: Table | None = None
        self._images: dict[tuple[str, str], str] = {}  # a hundred containers of one image ask for it once

    @property
    def client(self) -> Client:
        """The one client; the address is looked up when it is first needed, and each time where it may change."""
        with self._lock:
            if self._client is None or self._moves:
                address = self._find()
                if self._client is None or self._client.address != address:
                    before, self._client = self._client, Client(address, begun(address))
                    if before is not None:
                        before.close()  # nobody answers there any more; who still waits for it is told so
            return self._client

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        """Read everything, or only what these name, in a constant number of requests."""
        self._images.clear()
        client = self.client
        with understood(client.address):
            snapshot = observe(Place(client, self.name, self._host, self._spec, self._read), only)
        machine = self._spec["lxd"].get("virtualMachine")
        return snapshot if machine is None else _needing(snapshot, ResourceId("VirtualMachine", machine))

    def effects(self) -> Table:
        """What changes do: as LXD 5.0 does them, and what a newer one says of its further keys. Asked of it once."""
        with self._lock:
            known = self._table
        if known is None:
            try:
                known = liveness.table(self.client, Deadline.after(ANSWER))
            except BackendError:
                return TABLE  # nothing will be done to what does not answer
            with self._lock:
                self._table = known
        return known

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        """Carry out one step; see ``apply.carry_out``."""
        from reconciler.backends.lxd.apply import Task, carry_out

        client, deadline = self.client, Deadline.after(self._settings.timeout)
        with understood(client.address, writing=True):
            carry_out(Task(client, self._settings, step, desired, observed, tell, deadline, self._images))

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        """The readiness conditions of a container right now, each tried once; not known where LXD does not answer."""
        from reconciler.backends.lxd.readiness import READY, conditions

        if observed.id.kind != "Container":
            return ()
        try:
            client = self.client
            with understood(client.address):
                return conditions(self._console(observed.id), observed.spec.get("ready") or {})
        except BackendError as error:
            return (Condition(READY, None, "CannotTell", error.problem.summary),)

    def listening(self, id: ResourceId) -> frozenset[Socket]:
        """What listens in a container that runs."""
        from reconciler.backends.lxd.listening import listening

        client = self.client
        with understood(client.address):
            return listening(client, id.name, self._read)

    def watch(self, wake: Wake, stop: Stop) -> None:
        """Tell what LXD tells, and after every gap that anything may have changed."""
        from reconciler.backends.lxd.watching import watch

        watch(lambda: self.client, self._host, wake, stop)

    def power(self, id: ResourceId, action: str, force: bool, timeout: float, tell: Tell) -> None:
        """start | stop | restart a container. An ephemeral one, which goes with its stop, is stopped only by force."""
        from reconciler.backends.lxd.apply import later, power

        client, within = self.client, Deadline.after(timeout + power.GRACE)
        with understood(client.address, writing=True):
            if action != "stop" and later.take(client, self._settings, id, action, force, timeout, tell):
                return
            if action == "restart":
                power.restart(self._console(id), within, tell, force, timeout)
            if action == "start":
                power.start(self._console(id), within, tell)
            if action == "stop":
                if not force:
                    power.check_outlives_stop(client, id.name, within)
                power.stop(client, id.name, within, tell, force=force, grace=timeout)

    def logs(self, id: ResourceId, follow: bool) -> Iterator[bytes]:
        """The console log; with ``follow`` until the container stops."""
        from reconciler.backends.lxd.guests import follow_console

        return follow_console(self._console(id), follow)

    def execute(self, id: ResourceId, call: Call) -> int:
        """Run a command in the container on our own streams; its exit code."""
        from reconciler.backends.lxd.guests import execute

        return execute(self.client, id.name, call)

    @contextmanager
    def files(self, id: ResourceId) -> Iterator[GuestFiles]:
        """By LXD's files API: also while it is down."""
        from reconciler.backends.lxd.files import PlainFiles

        yield PlainFiles(self.client, id.name)

    def addresses(self) -> Mapping[ResourceId, Sequence[str]]:
        """Of containers on this host: their addresses in its networks."""
        from reconciler.backends.lxd.vitals import addresses

        return addresses(self.client)

    def usage(self) -> Mapping[ResourceId, Usage]:
        """As LXD counts it."""
        from reconciler.backends.lxd.vitals import usage

        client = self.client
        with understood(client.address):
            return usage(client)

    def shell(self, id: ResourceId, user: str | None = None) -> int:
        """An interactive shell on our terminal."""
        from reconciler.backends.lxd.guests import shell

        return shell(self.client, id.name, user)

    def monitor(self, id: ResourceId, words: Sequence[str]) -> int:
        """A container has none. Raises Refused."""
        raise Refused(Problem("only a VM has a monitor", subject=str(id), hint="`lxc monitor` tells what LXD does"))

    def _console(self, id: ResourceId) -> Console:
        return Console.of(self.client, self._settings.state, id.name)

    def close(self) -> None:
        """Let go of connections; the containers stay."""
        with self._lock:
            if self._client is not None:
                self._client.close()


def _needing(snapshot: Snapshot, machine: ResourceId) -> Snapshot:
    """Whatever is inside of a VM goes before the VM does."""
    inside = {id: replace(seen, needs=(*seen.needs, machine)) for id, seen in snapshot.resources.items()}
    return replace(snapshot, resources=inside)
