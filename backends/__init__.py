"""The backends: each satisfies reconciler.ports.Backend; none knows another. Here is where they are listed and opened.

Opening does no I/O and imports nothing heavy: only what the desired set needs is opened at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from reconciler.effects import Table
from reconciler.model import (
    ATTACHMENTS,
    LOCAL_HOST,
    QEMU,
    Condition,
    Desired,
    Observed,
    ResourceId,
    Snapshot,
    Spec,
    Step,
    lxd_backend,
)
from reconciler.ports import Backend, Settings, Tell
from reconciler.problems import Problem, Unreachable


def open_backends(desired: Iterable[Desired], settings: Settings, everything: bool = False) -> dict[str, Backend]:
    """The backends that these resources live in; with ``everything`` also the local ones that none of them uses."""
    hosts: dict[str, Spec] = {}
    names: set[str] = {QEMU, lxd_backend(LOCAL_HOST)} if everything else set()
    for want in desired:
        if want.id.kind == "Host":
            hosts[lxd_backend(want.id.name)] = want.spec
        if want.id.kind not in ATTACHMENTS:
            names.add(want.backend)
    return {name: _open(name, hosts.get(name), settings) for name in sorted(names)}


def open_local(settings: Settings) -> dict[str, Backend]:
    """QEMU and the local LXD: what there is to look at when no manifest says more."""
    return open_backends((), settings, everything=True)


def _open(name: str, host: Spec | None, settings: Settings) -> Backend:
    if name == QEMU:
        from reconciler.backends.qemu.backend import QemuBackend

        return QemuBackend(settings)
    if host is None and name != lxd_backend(LOCAL_HOST):
        return _InsideMachine(name)
    if host is not None and "virtualMachine" in host["lxd"]:
        return _InsideMachine(name)
    from reconciler.backends.lxd.backend import LxdBackend

    return LxdBackend(name, host or {"lxd": {"socket": "auto"}}, settings)


class _InsideMachine:
    """An LXD inside a VM of ours: manifests may name it, and this version cannot reach it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def observe(self, only: Collection[ResourceId] | None = None) -> Snapshot:
        """Always Unreachable, so that everything on it is held."""
        raise self._unreachable()

    def effects(self) -> Table:
        """Nothing is known of it."""
        return {}

    def apply(self, step: Step, desired: Desired | None, observed: Observed | None, tell: Tell) -> None:
        """Never reached: everything on it is held."""
        raise self._unreachable()

    def probe(self, observed: Observed) -> tuple[Condition, ...]:
        """Nothing is known of it."""
        return ()

    def close(self) -> None:
        """There is nothing to let go of."""

    def _unreachable(self) -> Unreachable:
        host = self.name.removeprefix("lxd/")
        return Unreachable(
            Problem("containers inside a VM are not carried out by this version", subject=f"Host/{host}")
        )
