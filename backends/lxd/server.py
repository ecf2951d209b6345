"""OBSERVE and APPLY: what an LXD says of itself. It says the same as long as its process runs: one of this host is
asked once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline

_PROC = Path("/proc")
_STARTED = 19  # the field, behind the name in brackets, with the clock tick at which it began


def server(client: Client, within: Deadline) -> Mapping[str, Any]:
    """The metadata of ``GET /1.0``: version, features, extensions; not the config, which may have changed since.
    Raises Refused or Unreachable."""
    known = client.server
    if known is not None and known[1] is not None and known[1] == _began(client, known[0]):
        return known[0]
    said: Mapping[str, Any] = client.get(within=within).metadata
    client.server = (said, _began(client, said))
    return said


def pid_of(said: Mapping[str, Any]) -> int:
    """Its process, as it numbers itself; 0 where it does not say."""
    return int(said["environment"].get("server_pid") or 0)


def _began(client: Client, said: Mapping[str, Any]) -> tuple[int, str] | None:
    """Which process that is; None when there is no such one on this host."""
    if client.address.socket is None:
        return None
    try:
        fields = (_PROC / str(pid_of(said)) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return pid_of(said), fields[_STARTED]
