"""OBSERVE, where ports are followed: what listens in a VM, by its own kernel's tables, which the agent reads."""

from __future__ import annotations

from contextlib import suppress

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.folders import Folder
from reconciler.problems import Problem, Refused, Unreachable
from reconciler.sockets import TABLES, Socket, parse

_PATIENCE = 5.0


def listening(folder: Folder, subject: str) -> frozenset[Socket]:
    """Every open socket in it. Raises BackendError when its agent does not say, or may not."""
    found: set[Socket] = set()
    read = 0
    with Agent(folder.agent, subject, _PATIENCE) as agent:
        for table, protocol in TABLES.items():
            with suppress(Refused):  # a kernel without IPv6 has no such table
                found.update(parse(agent.read_file(f"/proc/net/{table}").decode("ascii", "replace"), protocol))
                read += 1
    if not read:  # an agent that is told to read no files refuses every one: that is silence, and not an empty table
        raise Unreachable(Problem("what listens in it cannot be read", subject=subject))
    return frozenset(found)
