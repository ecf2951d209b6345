"""APPLY and OBSERVE, our side of a VM's forwarder: what it listens on, opened here; the process, started and ended.

Nothing of it is written down. Which process it is, a flock tells; what it does, it says itself. It watches its QEMU
and ends with it, whether or not anybody of us is there.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reconciler.backends.qemu import companions, process
from reconciler.backends.qemu.companions import Companion
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.forwarding.program import MESSAGE, MOST_AT_ONCE
from reconciler.backends.qemu.forwarding.rules import Rule, parse
from reconciler.backends.qemu.records import Record
from reconciler.backends.qemu.sockets import connect, listen
from reconciler.problems import Problem, Refused, Unreachable

_ANSWER, _BEGINNING, _LOOK = 5.0, 30.0, 1.0
"""Seconds: for a request; for the first one, on a busy machine; for a mere look."""
_START = Path(__file__).with_name("start.py")
_BACKLOG = 128
_WHY = {
    errno.EADDRINUSE: "another program listens there",
    errno.EADDRNOTAVAIL: "it is no address of this host",
    errno.EACCES: "ports below 1024 are root's",
}


def companion(folder: Folder) -> Companion:
    """The forwarder of the VM."""
    subject = f"VirtualMachine/{folder.name}"
    return Companion(folder.path / "forwarder.alive", folder.path / "forwarder.log", "forwarder", subject)


def is_alive(folder: Folder) -> bool:
    """Whether there is one: the kernel's own answer."""
    return companions.is_held(companion(folder).alive)


def seen(folder: Folder) -> frozenset[Rule] | None:
    """What it listens on now. Nothing when there is none; None when it is stuck: it listens, and leads nowhere."""
    if not is_alive(folder):
        return frozenset()
    try:
        with _talk(folder, _LOOK) as ask:
            return frozenset(map(parse, ask("list")))
    except (Unreachable, Refused):
        return None if is_alive(folder) else frozenset()


def advise(folder: Folder, addresses: Mapping[str, Sequence[str]]) -> None:
    """Tell it where else to ask for a guest. addresses: by the address of the card"""
    _request(folder, "ask", [" ".join([card, *some]) for card, some in addresses.items()])


def end(folder: Folder) -> None:
    """No forwarder of it any more."""
    companions.end(companion(folder))


def converge(
    folder: Folder, record: Record, wanted: Mapping[Rule, str], tell: Callable[[str], None], fresh: bool
) -> None:
    """Have it listen on what is wanted, and on nothing else; other ports' connections go on. wanted: rule → its name.

    fresh: QEMU has only just been started, so that one which runs belongs to an earlier one. Refused when a port
    cannot be had: then none of the new ones is.
    """
    there = (None if fresh or not wanted else seen(folder)) or frozenset()
    if not there:
        end(folder)
    if not wanted:
        return
    unwanted, missing, turned = _compare(there, wanted)
    if unwanted:
        _request(folder, "remove", unwanted)
    with ExitStack() as stack:
        handles = [stack.enter_context(_opened(rule, wanted[rule], record.id)).fileno() for rule in missing]
        for rule in (*missing, *turned):
            tell(f"forwarding {rule.listen}")
        if not there:
            _spawn(folder, record)
        for start in range(0, len(missing), MOST_AT_ONCE):
            part = slice(start, start + MOST_AT_ONCE)
            _request(folder, "add", missing[part], handles[part])
    if turned:
        _request(folder, "turn", turned)


def _compare(there: frozenset[Rule], wanted: Mapping[Rule, str]) -> tuple[list[str], list[Rule], list[Rule]]:
    """Keys of what is to go; what is missing; what listens already, and is to lead elsewhere."""
    keys, mine = {rule.key for rule in there}, {rule.key for rule in wanted}
    missing = [rule for rule in sorted(wanted) if rule.key not in keys]
    return sorted(keys - mine), missing, sorted(wanted.keys() - there - set(missing))


def _spawn(folder: Folder, record: Record) -> None:
    qemu = process.find(folder, record)
    if qemu is None:
        raise Unreachable(Problem("its QEMU has ended", subject=record.id))
    one = companion(folder)
    with listen(_door(folder), socket.SOCK_SEQPACKET) as door, process.watched(qemu) as watched:
        user = "-" if record.uid is None else str(record.uid)
        words = [record.uuid, user, str(door.fileno()), str(watched)]
        argv = [sys.executable, "-I", "-S", str(_START), *words]
        companions.spawn(one, argv, (door.fileno(), watched))
    try:
        with _talk(folder, _BEGINNING) as ask:
            ask("list")
    except (Unreachable, Refused) as error:
        end(folder)
        what = "its forwarder does not begin"
        raise Refused(Problem(what, subject=record.id, detail=companions.last_words(one) or None)) from error


@contextmanager
def _opened(rule: Rule, name: str, subject: str) -> Iterator[socket.socket]:
    """Its listening socket. Refused, with the reason, when it cannot be had."""
    address, _, port = rule.listen.rpartition(":")
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    stream = rule.protocol == "tcp"
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if stream:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.strip("[]"), int(port)))
            if stream:
                sock.listen(_BACKLOG)
        except OSError as error:
            what = f"forwards.{name}: {rule.listen} cannot be had on this host: {error.strerror}"
            hint = _WHY.get(error.errno or 0)
            raise Refused(Problem(what, subject=subject, hint=hint)) from error
        yield sock


def _request(folder: Folder, word: str, lines: Sequence[Rule | str], handles: Sequence[int] = ()) -> None:
    with _talk(folder, _ANSWER) as ask:
        ask("\n".join([word, *map(str, lines)]), handles)


@contextmanager
def _talk(folder: Folder, patience: float) -> Iterator[Callable[..., list[str]]]:
    """Ask it something: yields a function from a request (and descriptors) to the lines of the answer."""
    subject = f"VirtualMachine/{folder.name}"

    def ask(request: str, handles: Sequence[int] = ()) -> list[str]:
        try:
            socket.send_fds(line, [request.encode()], list(handles))
            answer = line.recv(MESSAGE).decode()
        except OSError as error:
            raise Unreachable(Problem(f"its forwarder does not answer: {error}", subject=subject)) from error
        word, *lines = answer.split("\n")
        if word != "ok":
            raise Refused(Problem(f"its forwarder refused: {answer or 'it has ended'}", subject=subject))
        return lines

    with connect(_door(folder), subject, socket.SOCK_SEQPACKET) as line:
        line.settimeout(patience)
        yield ask


def _door(folder: Folder) -> Path:
    return folder.sockets / "forwarder.sock"
