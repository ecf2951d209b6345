"""Beside the flow: a guest's ``/etc/passwd`` and ``/etc/group`` as text, for whoever makes accounts or acts as one.

The guest's people write parts of it (their full names): a line ends where the C library ends it, at a line feed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FIRST_UID = 1000
"""Where people's accounts begin."""
_LAST_UID = 59999
_LOCKED = "*"
_DIGITS = 10
"""Of the largest number that the kernel has for anybody."""


@dataclass(frozen=True, slots=True)
class Account:
    """One line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


@dataclass(frozen=True, slots=True)
class Group:
    """One line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...] = ()


def accounts(passwd: str) -> Iterator[Account]:
    """Every account; a line that is none is left out."""
    for line in _lines(passwd):
        parts = line.split(":")
        if len(parts) == 7 and parts[0] and _is_number(parts[2]) and _is_number(parts[3]):
            yield Account(parts[0], int(parts[2]), int(parts[3]), parts[5] or "/", parts[6] or "/bin/sh")


def groups(group: str) -> Iterator[Group]:
    """Every group; a line that is none is left out."""
    for line in _lines(group):
        parts = line.split(":")
        if len(parts) == 4 and parts[0] and _is_number(parts[2]):
            yield Group(parts[0], int(parts[2]), tuple(filter(None, parts[3].split(","))))


def find_account(passwd: str, who: str) -> Account | None:
    """The account of that name, or else of that number."""
    found = list(accounts(passwd))
    named = [one for one in found if one.name == who]
    numbered = [one for one in found if _is_number(who) and one.uid == int(who)]
    return next(iter(named or numbered), None)


def memberships(group: str, account: Account) -> tuple[int, ...]:
    """The numbers of the groups that it is in, its own first."""
    further = sorted({one.gid for one in groups(group) if account.name in one.members} - {account.gid})
    return (account.gid, *further)


def free_uid(passwd: str) -> int:
    """The first number above those that people have."""
    taken = [one.uid for one in accounts(passwd) if FIRST_UID <= one.uid <= _LAST_UID]
    return max(taken, default=FIRST_UID - 1) + 1


def free_gid(group: str, wanted: int) -> int:
    """That number, or the next one that no group has."""
    taken = {one.gid for one in groups(group)}
    while wanted in taken:
        wanted += 1
    return wanted


def with_account(passwd: str, account: Account) -> str:
    """The file with this account: its home and shell changed, or a line of its own at the end."""
    lines = _lines(passwd)
    for number, line in enumerate(lines):
        parts = line.split(":")
        if len(parts) == 7 and parts[0] == account.name:
            lines[number] = ":".join([*parts[:5], account.home, account.shell])
            return _joined(lines)
    own = f"{account.name}:x:{account.uid}:{account.gid}::{account.home}:{account.shell}"
    return _joined([*lines, own])


def with_shadow(shadow: str, name: str) -> str:
    """/etc/shadow with a line for that account: no password will do."""
    if any(line.startswith(f"{name}:") for line in _lines(shadow)):
        return shadow
    return _joined([*_lines(shadow), f"{name}:{_LOCKED}:::::::"])


def with_group(group: str, name: str, gid: int) -> str:
    """The file with that group; one that is there stays as it is."""
    if any(one.name == name for one in groups(group)):
        return group
    return _joined([*_lines(group), f"{name}:x:{gid}:"])


def with_member(group: str, name: str, member: str) -> str:
    """The file with that account in that group."""
    lines = _lines(group)
    for number, line in enumerate(lines):
        parts = line.split(":")
        if len(parts) == 4 and parts[0] == name and member not in parts[3].split(","):
            lines[number] = ":".join([*parts[:3], ",".join(filter(None, [*parts[3].split(","), member]))])
    return _joined(lines)


def without_member(group: str, name: str, member: str) -> str:
    """The file without that account in that group."""
    lines = _lines(group)
    for number, line in enumerate(lines):
        parts = line.split(":")
        if len(parts) == 4 and parts[0] == name:
            lines[number] = ":".join(
                [*parts[:3], ",".join(one for one in parts[3].split(",") if one not in ("", member))]
            )
    return _joined(lines)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= _DIGITS


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
