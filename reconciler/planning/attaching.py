"""PLAN: Share, Device and PortForward: their guests' steps carry them out, and their own say so, or why not.

A port of this machine that another program listens on is left out of its guest's changes, and the PortForward is held.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import replace

from reconciler import attachments
from reconciler.model import ATTACHMENTS, GUESTS, Change, Desired, Effect, Power, ResourceId, Spec, Step, Verb, World
from reconciler.planning.asked import hold
from reconciler.planning.towers import machines_of
from reconciler.sockets import Socket

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  compared with, never bound


def carried(want: Desired, desired: Mapping[ResourceId, Desired], steps: Mapping[ResourceId, Step]) -> Step:
    """The step of an attachment, once its guests' steps are known."""
    guests = [id for id in want.needs if id.kind in GUESTS]
    later = []
    for id in guests:
        if attachments.entry(id.kind, desired[id].spec, want.id) is None:
            return hold(want, f"{id} has nothing of it")
        if steps[id].verb is Verb.HOLD:
            return replace(hold(want, f"{id} is held"), awaits=steps[id].awaits)
        waiting = [change for change in steps[id].waiting if _is_about(change, id, want.id)]
        if any(change.effect is Effect.IMPOSSIBLE for change in waiting):
            return hold(want, waiting[0].note)
        later += [id] if waiting else []
    names = _carriers(guests, {id: f"{id}, when it restarts" for id in later}, desired)
    busy = any(steps[id].verb is not Verb.NOOP for id in guests)
    reason = f"carried by {names}" if guests else "no guest has it"
    return Step(want.id, want.backend, Verb.NOOP, reason, notes=_notes(want) if busy else ())


def _carriers(guests: list[ResourceId], words: Mapping[ResourceId, str], desired: Mapping[ResourceId, Desired]) -> str:
    """``Container/web, VirtualMachine/termina and Container/penguin``: a VM stands before what it passes it on to."""
    homes = machines_of(desired)
    chains: dict[ResourceId, list[ResourceId]] = {}
    for id in sorted(guests, key=lambda one: one.kind != "VirtualMachine"):
        machine = homes.get(desired[id].backend)
        chains.setdefault(machine if machine in guests else id, []).append(id)
    told = [[words.get(id, str(id)) for id in chains[first]] for first in sorted(chains)]
    return ", ".join(" and ".join([", ".join(chain[:-1]), chain[-1]] if chain[1:] else chain) for chain in told)


def _is_about(change: Change, guest: ResourceId, id: ResourceId) -> bool:
    place = attachments.place(guest.kind, id)
    return change.path[:2] == place[: len(change.path)]


def _notes(want: Desired) -> tuple[str, ...]:
    """Without an object there is nothing that could keep a word given earlier."""
    stated = {"protect": want.spec.get("protect"), "deletionPolicy": want.spec.get("deletionPolicy") == "retain"}
    return tuple(f"{field}: only that of its guests counts" for field, said in stated.items() if said)


def clashes(desired: Mapping[ResourceId, Desired], world: World) -> dict[ResourceId, tuple[Change, ...]]:
    """Guest → the forwarded ports that it cannot get: another program of this machine listens there."""
    if not world.listening:
        return {}
    foreign = of_others(world)
    inside = machines_of(desired)  # what listens in there is no port of this machine
    found: dict[ResourceId, tuple[Change, ...]] = {}
    for guest, want in desired.items():
        for id, entry in attachments.carried(guest.kind, want.spec):
            if id.kind != "PortForward" or want.backend in inside:
                continue
            if not _is_taken(guest.kind, entry, foreign):
                continue
            note = f"{attachments.listener(guest.kind, entry).listen} is taken by another program"
            seen = world.find(want.backend, guest)
            old = attachments.entry(guest.kind, seen.spec, id) if seen is not None else None
            keeps = old is not None and not _is_taken(guest.kind, old, foreign)  # it goes on where it listened so far
            place = attachments.place(guest.kind, id)
            change = Change("change" if keeps else "add", place, old, entry, Effect.IMPOSSIBLE, note)
            found[guest] = (*found.get(guest, ()), change)
    return found


def of_others(world: World) -> frozenset[Socket]:
    """What listens on this machine and is none of our guests' forwarded ports."""
    return world.listening - set(_our_own(world))


def _is_taken(guest_kind: str, entry: Spec, foreign: frozenset[Socket]) -> bool:
    where = attachments.listener(guest_kind, entry)
    wanted = socket(where.protocol, where.listen)
    return wanted is not None and any(overlap(wanted, other) for other in foreign)


def _our_own(world: World) -> Iterator[Socket]:
    """What running guests that we look at listen on already; raw proxy devices, too."""
    for seen in world:
        if seen.power not in (Power.RUNNING, Power.PAUSED) or attachments.machine_of(seen) is not None:
            continue
        entries = [one for id, one in attachments.carried(seen.id.kind, seen.spec) if id.kind == "PortForward"]
        if seen.id.kind == "Container":
            entries += [one for one in (seen.spec.get("devices") or {}).values() if one.get("type") == "proxy"]
        for entry in entries:
            where = attachments.listener(seen.id.kind, entry)
            if (found := socket(where.protocol, where.listen)) is not None:
                yield found


def socket(protocol: str, listen: str) -> Socket | None:
    """``tcp`` and ``127.0.0.1:8080``, read; None for what is no address and port."""
    address, _, port = listen.rpartition(":")
    try:
        return protocol, str(ipaddress.ip_address(address.strip("[]"))), int(port)
    except ValueError:
        return None


def overlap(one: Socket, other: Socket) -> bool:
    """Whether only one of the two can be listened on. ``::`` takes IPv4 as well, unless it was told not to."""
    if (one[0], one[2]) != (other[0], other[2]):
        return False
    if one[1] == other[1] or "::" in (one[1], other[1]):
        return True
    same_family = (":" in one[1]) == (":" in other[1])
    return same_family and bool({one[1], other[1]} & set(_WILDCARDS))


def is_attachment(want: Desired) -> bool:
    """Whether it has no object of its own."""
    return want.id.kind in ATTACHMENTS
