"""Power of an instance: start, stop (asking first), freeze; each idempotent, each told."""

from __future__ import annotations

from reconciler.backends.lxd.apply import shares
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.console import Console
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.terms.containers import power_of
from reconciler.backends.lxd.terms.values import read_size
from reconciler.model import Power
from reconciler.ports import Tell
from reconciler.problems import GuestFailed, Interrupted, Problem, Refused

GRACE = 10.0
"""Seconds that a guest has to go down by itself before it is made to."""

_NOT_YET = "already running"  # said too while an earlier order, whose end nobody waited for, is still carried out
_HURRIED = "Please look in"
"""What LXD says of a proxy that has not told it within five seconds that it listens: the first time, a busy machine
needs longer. One that cannot listen says why itself."""
_SCANT = 8 << 20  # bytes of memory below which hardly any init comes up


def power_now(client: Client, name: str, within: Deadline) -> Power:
    """What the instance is doing at this moment. Not asked of its state, which LXD has to gather in the guest."""
    return power_of(client.get("instances", name, within=within).metadata["status"])


def start(console: Console, within: Deadline, tell: Tell, now: Power | None = None) -> bool:
    """Have it running; False when it was. Raises GuestFailed with LXC's own last words when it does not start.

    now: what it is doing, when that was just asked
    """
    client, name = console.client, console.name
    now = power_now(client, name, within) if now is None else now
    if now is Power.RUNNING:
        return False
    if now is Power.PAUSED:
        _change(client, name, "unfreeze", within)
        return False
    tell("starting")
    console.forget()
    try:
        _start(client, name, within)
    except Refused as error:
        if power_now(client, name, within) is Power.RUNNING:
            return True  # an earlier try of ours, whose end we did not hear of, was quicker
        if _NOT_YET in error.problem.summary:
            raise Interrupted(Problem("it is just being started or stopped", hint="apply again")) from error
        words = f"{error.problem.summary}\n{console.last_words()}"
        raise GuestFailed(Problem("it does not start", detail=words, hint=advice(console))) from error
    return True


def _start(client: Client, name: str, within: Deadline) -> None:
    try:
        _change(client, name, "start", within)
    except Refused as error:
        if shares.UNSHIFTED in error.problem.summary:
            shares.without_owners(client, name, within)
        elif _HURRIED not in error.problem.summary:
            raise
        _change(client, name, "start", within)


def advice(console: Console) -> str:
    """What to do about one that failed: with next to no memory the kernel kills it before it can say a word."""
    found = console.client.find("instances", console.name, within=Deadline.after(GRACE))
    limit = found.metadata["expanded_config"].get("limits.memory") if found else None
    size = read_size(limit) if limit else None
    if isinstance(size, int) and size < _SCANT:
        return f"memory: {limit} is hardly enough to start anything: give it more, and apply again"
    return "apply again takes it up"


def restart(console: Console, within: Deadline, tell: Tell, force: bool, grace: float) -> None:
    """Stop and start; an ephemeral one, which LXD would delete with its stop, comes back as it was."""
    client, name = console.client, console.name
    ephemeral = client.get("instances", name, within=within).metadata["ephemeral"]
    if ephemeral:
        set_ephemeral(client, name, False, within)
    stop(client, name, within, tell, force=force, grace=grace)
    start(console, within, tell)
    if ephemeral:
        set_ephemeral(client, name, True, within)


def set_ephemeral(client: Client, name: str, ephemeral: bool, within: Deadline) -> None:
    """Whether LXD deletes it when it stops; nothing else of it is written."""
    client.patch(("instances", name), {"ephemeral": ephemeral}, within)


def check_outlives_stop(client: Client, name: str, within: Deadline) -> None:
    """Raise Refused when a stop would delete it."""
    if client.get("instances", name, within=within).metadata["ephemeral"]:
        raise Refused(
            Problem(
                "it is ephemeral: stopping deletes it",
                subject=f"Container/{name}",
                hint="delete it, or take ephemeral out of its manifest first",
            )
        )


def stop(client: Client, name: str, within: Deadline, tell: Tell, force: bool = False, grace: float = GRACE) -> None:
    """Have it stopped: asked first, and made to after ``grace`` seconds, unless ``force`` says at once."""
    now = power_now(client, name, within)
    if now is Power.STOPPED:
        return
    if now is Power.PAUSED:
        _change(client, name, "unfreeze", within)  # what is frozen can neither hear nor obey
    if not force:
        tell("stopping")
        try:
            _change(client, name, "stop", within, timeout=max(1, round(min(grace, within.left))))
            return
        except (Refused, Interrupted):
            if power_now(client, name, Deadline.after(GRACE)) is Power.STOPPED:
                return
            tell(f"did not stop within {grace:.0f} s: stopping by force")
    _change(client, name, "stop", Deadline.after(max(GRACE, within.left)), force=True)


def freeze(client: Client, name: str, within: Deadline, tell: Tell) -> None:
    """Have it frozen; it must be running or frozen."""
    if power_now(client, name, within) is Power.RUNNING:
        tell("pausing")
        _change(client, name, "freeze", within)


def _change(client: Client, name: str, action: str, within: Deadline, force: bool = False, timeout: int = 0) -> None:
    body = {"action": action, "force": force, "timeout": timeout or max(1, int(within.left)), "stateful": False}
    client.put(("instances", name, "state"), body, within)
