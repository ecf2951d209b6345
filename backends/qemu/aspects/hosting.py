"""OBSERVE: whether the LXD inside a VM listens, and is the one that we know, by the guest's own word."""

from __future__ import annotations

from reconciler.backends.qemu import hosting
from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.readiness import listening
from reconciler.backends.qemu.records import Record

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def questions(_record: Record) -> dict[str, Command]:
    """QEMU does not know."""
    return {}


def files(record: Record) -> tuple[str, ...]:
    """The sockets that are listened on, and the certificate that is shown there."""
    return (*_TABLES, hosting.CERTIFICATE) if (record.applied or {}).get("lxd") else ()


def read(view: View) -> Reading:
    """``lxd: false`` where it does not answer for itself: the next apply waits for it and makes us known to it."""
    if not view.spec.get("lxd") or view.word is None:
        return Reading({})
    tables = "\n".join(view.word.get(path, b"").decode("ascii", "replace") for path in _TABLES)
    pinned = hosting.certificate(view.folder)
    known = pinned.exists() and pinned.read_bytes() == view.word.get(hosting.CERTIFICATE)
    return Reading({"lxd": known and hosting.PORT in listening(tables)})
