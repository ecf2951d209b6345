"""The backends: each satisfies reconciler.ports.Backend; none knows another. Here is where they are listed and opened,
and where the LXD inside a VM of ours is brought together with the way into it.

Opening does no I/O and imports nothing heavy: only what the desired set needs is opened at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.model import ATTACHMENTS, LOCAL_HOST, QEMU, Desired, Spec, lxd_backend
from reconciler.ports import Backend, Settings

if TYPE_CHECKING:
    from reconciler.backends.lxd.address import Address


def open_backends(desired: Iterable[Desired], settings: Settings, everything: bool = False) -> dict[str, Backend]:
    """The backends that these resources live in; with ``everything`` also this machine's that none of them uses:
    QEMU, the local LXD, and those inside of VMs that run."""
    hosts: dict[str, Spec] = {}
    names: set[str] = {QEMU, lxd_backend(LOCAL_HOST)} if everything else set()
    if everything:
        from reconciler.backends.qemu.hosting import hosts as machines

        names.update(map(lxd_backend, machines(settings)))
    for want in desired:
        if want.id.kind == "Host":
            hosts[lxd_backend(want.id.name)] = want.spec
        if want.id.kind not in ATTACHMENTS:
            names.add(want.backend)
    return {name: _open(name, hosts, settings) for name in sorted(names)}


def _open(name: str, hosts: Mapping[str, Spec], settings: Settings) -> Backend:
    if name == QEMU:
        from reconciler.backends.qemu.backend import QemuBackend

        return QemuBackend(settings)
    from reconciler.backends.lxd.backend import LxdBackend

    host = hosts.get(name) or ({"lxd": {"socket": "auto"}} if name == lxd_backend(LOCAL_HOST) else None)
    if host is None or "virtualMachine" in host["lxd"]:
        machine = host["lxd"]["virtualMachine"] if host is not None else name.removeprefix("lxd/")
        inside = {"lxd": {"virtualMachine": machine}, "deletionPolicy": "delete"}
        return LxdBackend(
            name,
            host or inside,
            settings,
            lambda: _address_inside(settings, machine),
            lambda paths: _read_inside(settings, machine, paths),
        )
    return LxdBackend(name, host, settings)


def _address_inside(settings: Settings, machine: str) -> Address:
    from reconciler.backends.lxd.address import Address
    from reconciler.backends.qemu.hosting import reach

    way = reach(settings, machine)
    return Address(
        url=way.url,
        server_certificate=way.server_certificate,
        client_certificate=way.client_certificate,
        client_key=way.client_key,
        origin=f"inside VirtualMachine/{machine}",
    )


def _read_inside(settings: Settings, machine: str, paths: Sequence[str]) -> Mapping[str, bytes]:
    from reconciler.backends.qemu.hosting import read

    return read(settings, machine, paths)
