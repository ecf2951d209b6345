"""OBSERVE, where ports are followed: what listens in a container, by the tables of its network namespace.

They are read from outside, by its init's pid, and nothing is run in it: here, or by the agent of the VM it is in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.within import Reader
from reconciler.problems import Problem, Refused, Unreachable
from reconciler.sockets import TABLES, Socket, parse

_PATIENCE = 10.0


def listening(client: Client, name: str, read: Reader | None) -> frozenset[Socket]:
    """Every open socket in it. read: of the machine that its LXD runs on; None: this one. Raises BackendError."""
    if read is None and client.address.socket is None:
        raise Refused(Problem("it is on another machine", subject=f"Container/{name}"))
    pid = int(client.get("instances", name, "state", within=Deadline.after(_PATIENCE)).metadata["pid"])
    if pid <= 0:
        raise Refused(Problem("it does not run", subject=f"Container/{name}"))
    paths = {f"/proc/{pid}/net/{table}": protocol for table, protocol in TABLES.items()}
    tables = (read or _read_here)(list(paths))
    if not tables:
        raise Unreachable(Problem("what listens in it cannot be read", subject=f"Container/{name}"))
    return _open(tables, paths)


def open_here() -> frozenset[Socket]:
    """Every open socket of this machine."""
    paths = {f"/proc/net/{table}": protocol for table, protocol in TABLES.items()}
    return _open(_read_here(list(paths)), paths)


def _open(tables: Mapping[str, bytes], paths: Mapping[str, str]) -> frozenset[Socket]:
    return frozenset(
        one for path, table in tables.items() for one in parse(table.decode("ascii", "replace"), paths[path])
    )


def _read_here(paths: Sequence[str]) -> Mapping[str, bytes]:
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path] = Path(path).read_bytes()
    return found
