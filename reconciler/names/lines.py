"""NAMES, the lines: which names guests have, and the addresses that this host reaches them by. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler import attachments
from reconciler.model import GUESTS, Observed, Power, ResourceId, lxd_backend
from reconciler.problems import Problem

DOMAIN = "linux.test"
"""Reserved for what is never on the internet (RFC 6761), so that no name of ours is anybody else's."""
BLOCK = "reconciler"
"""What our part of the file is called."""
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""What may stand in a line: an LXD inside of a VM says what its containers are called, and may say anything."""

Direct = Mapping[tuple[str, ResourceId], Sequence[str] | None]
"""Backend and guest → addresses of its own that this host reaches; None: it did not say."""


@dataclass(frozen=True, slots=True)
class Names:
    """The lines of the block, and what has no line, with why; silent: names of guests that may have addresses of their
    own, and did not say which."""

    lines: list[str]
    problems: list[Problem]
    silent: frozenset[str] = frozenset()


def names(guests: Iterable[Observed], direct: Direct) -> Names:
    """A line for each address of each guest of ours that runs: full name, and a short one that no other has."""
    all = sorted(guests, key=lambda one: (one.id, one.backend))
    running = [one for one in all if one.id.kind in GUESTS and one.owned and one.power is Power.RUNNING]
    machines = {one.id: one for one in all if one.id.kind == "VirtualMachine"}
    short = [one.id.name for one in running]
    far = {lxd_backend(one.id.name) for one in all if one.id.kind == "Host" and "url" in one.spec.get("lxd", {})}
    lines: list[str] = []
    problems: list[Problem] = []
    silent: set[str] = set()
    for one in running:
        found = sorted(set(_addresses(one, machines, direct)), key=_order)
        called = _names(one, alone=short.count(one.id.name) == 1)
        is_silent = direct.get((one.backend, one.id), ()) is None
        silent.update(called if is_silent else ())
        if not _LABEL.fullmatch(one.id.name):
            problems.append(Problem("it is called what no host can be called: no name", subject=repr(_subject(one))))
        elif one.backend in far:
            problems.append(Problem("it is on another machine: no name", subject=_subject(one)))
        elif is_silent and not found:
            hint = "its guest agent tells; where a line of it is kept, that stays"
            problems.append(Problem("it does not say by what address it is reached", subject=_subject(one), hint=hint))
        elif not found:
            hint = "give it a PortForward, or a network card on a bridge of this host"
            problems.append(Problem("nothing to reach it by: no name", subject=_subject(one), hint=hint))
        elif not called:
            problems.append(Problem(f"another guest is called {one.id.name}, too: no name", subject=_subject(one)))
        else:
            lines += [f"{address}\t{' '.join(called)}" for address in found]
    return Names(lines, problems, frozenset(silent))


def carried_over(before: Sequence[str], found: Names, whole: bool) -> list[str]:
    """The lines that take the place of those before: silence is not absence.

    A guest that did not say its addresses goes by those that it had. whole: False: some could not be looked at at all,
    and what only the lines before tell of stays.
    """
    old = [line for line in before if _called(line) & found.silent]
    known = {name for line in old for name in _called(line)}
    now = [line for line in found.lines if not _called(line) & known] + old
    if not whole:
        now += kept(before, now)
    return list(before) if sorted(now) == sorted(before) else now


def kept(before: Iterable[str], now: Sequence[str]) -> list[str]:
    """The lines of a block that tell of names which the new ones do not."""
    known = {name for line in now for name in _called(line)}
    return [line for line in before if _called(line) and not known & _called(line)]


def _called(line: str) -> set[str]:
    return set(line.split()[1:])


def _names(one: Observed, alone: bool) -> list[str]:
    machine = _machine_of(one)
    full = [f"{one.id.name}.{machine.name}.{DOMAIN}"] if machine is not None else []
    return full + ([f"{one.id.name}.{DOMAIN}"] if alone else [])


def _machine_of(one: Observed) -> ResourceId | None:
    return next((need for need in one.needs if one.id.kind == "Container" and need.kind == "VirtualMachine"), None)


def _subject(one: Observed) -> str:
    machine = _machine_of(one)
    return f"{machine.name}/{one.id.name}" if machine is not None else str(one.id)


def _addresses(one: Observed, machines: Mapping[ResourceId, Observed], direct: Direct) -> Iterator[str]:
    """Its own, else where the ports that lead to it listen on this host."""
    own = direct.get((one.backend, one.id))
    if own:
        yield from own
        return
    carrier, machine = one, _machine_of(one)
    ports = [(id, entry) for id, entry in attachments.carried(one.id.kind, one.spec) if id.kind == "PortForward"]
    if machine is not None:
        if machine not in machines:
            return
        carrier = machines[machine]
        through = [(id, attachments.entry("VirtualMachine", carrier.spec, id)) for id, _ in ports]
        ports = [(id, entry) for id, entry in through if entry is not None]
    for _, entry in ports:
        if (address := _listening(attachments.listener(carrier.id.kind, entry).listen)) is not None:
            yield address


def _listening(listen: str) -> str | None:
    """``127.0.0.1:8080`` → its address; every address of this host is reached by loopback."""
    text = listen.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None  # a zone may be any text
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return str(address)


def _order(text: str) -> tuple[int, int]:
    address = ipaddress.ip_address(text)
    return address.version, int(address)
