"""APPLY: every share mounted in a guest that runs, as soon as its agent answers."""

from __future__ import annotations

from reconciler.backends.qemu import readiness
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.inside import shares
from reconciler.backends.qemu.readiness import Guest
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import GuestFailed, Interrupted, Unreachable

SECTION, PREFIX = "shares", "share-"
_AGENT = 3.0
"""Seconds for the agent of a guest that has been up for a while."""


def mount_shares(guest: Guest, spec: Spec, tell: Tell, limit: float) -> None:
    """Mounted as declared. A guest whose agent keeps silent is left to mount them itself: a condition says so.

    limit: seconds that a guest which has just been started may take for its agent to answer
    """
    record = guest.record
    plugged = {name: record.plugged.get(f"{PREFIX}{name}") for name in spec.get(SECTION, {})}
    if not plugged or not spec.get("guestAgent", True):
        return
    try:
        if record.settled != record.process:
            await_agent(guest, spec, tell, limit)
        with Agent(guest.folder.agent, guest.subject, _AGENT) as agent:
            for name, part in plugged.items():
                if part is not None:
                    shares.put_in_place(agent, name, part, guest.subject)
    except (Unreachable, Interrupted) as error:
        tell(f"shares are not mounted: {error.problem.summary}")


def await_agent(guest: Guest, spec: Spec, tell: Tell, limit: float) -> None:
    ready = {"guestAgent": True, "timeout": spec.get("ready", {}).get("timeout", readiness.TIMEOUT)}
    try:
        readiness.await_ready(guest, ready, True, tell, limit)
    except GuestFailed:
        if readiness.is_lost(guest) or guest.process is None:
            raise
