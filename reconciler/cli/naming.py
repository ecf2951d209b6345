"""How resources are named on the command line: ``Kind/name``, ``vm/container``, or a guest's bare name. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from reconciler.desired import GUESTS, ResourceId
from reconciler.problems import Problem, UsageError

if TYPE_CHECKING:
    from reconciler.model import Observed

_ADDRESS = re.compile(r"([a-z0-9][a-z0-9-]*)/([a-z][a-z0-9-]*)")
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_LXD = "lxd/"


def address(word: str) -> tuple[str, str] | None:
    """The two halves of ``vm/container``; None for anything else. A kind begins with a capital, a name never does."""
    found = _ADDRESS.fullmatch(word)
    return (found[1], found[2]) if found else None


def homes(one: Observed) -> frozenset[str]:
    """What may stand before the slash for this container: its Host, and the VM that this is in."""
    if one.id.kind != "Container":
        return frozenset()
    return frozenset({one.backend.removeprefix(_LXD), *(id.name for id in one.needs if id.kind == "VirtualMachine")})


def is_named(one: Observed, word: str) -> bool:
    """Whether that is what the word means. Raises UsageError for a kind that there is not."""
    if (parts := address(word)) is not None:
        return one.id.name == parts[1] and parts[0] in homes(one)
    if "/" in word:
        return one.id == resource_id(word)
    return one.id.kind in GUESTS and one.id.name == word


def among(word: str, declared: Mapping[ResourceId, Collection[str]]) -> ResourceId:
    """Which resource the word means, of those that are declared (each with its ``homes``), or a UsageError with a way
    out. What it says in full is what it means, declared or not.
    """
    if (parts := address(word)) is not None:
        id = ResourceId("Container", parts[1])
        matching = [id] if parts[0] in declared.get(id, ()) else []
    elif "/" in word:
        return resource_id(word)
    else:
        matching = [id for id in declared if id.kind in GUESTS and id.name == word]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(Problem("several are called so", subject=word, hint=f"say {' or '.join(map(str, matching))}"))
    known = [*map(str, declared), *(id.name for id in declared if id.kind in GUESTS)]
    known += [f"{home}/{id.name}" for id, homes in declared.items() for home in homes]
    raise UsageError(Problem("no such resource is declared", subject=word, hint=suggestion(word, known)))


def resource_id(text: str) -> ResourceId:
    """``Kind/name`` of a kind that there is, or a UsageError that says so."""
    try:
        id = ResourceId.parse(text)
    except ValueError as error:
        raise UsageError(Problem(str(error))) from None
    check_kind(id.kind)
    return id


def check_kind(kind: str) -> None:
    """UsageError, with did-you-mean, when there is no such kind."""
    from reconciler.schema import kinds

    if kind not in kinds():
        raise UsageError(Problem(f'there is no kind "{kind}"', hint=suggestion(kind, kinds())))


def is_guest_name(word: str) -> bool:
    """Whether it can only be a guest's bare name: no kind, however it is written, nor anything near one."""
    from reconciler.schema import kinds, near

    return _NAME.fullmatch(word) is not None and near(word, kinds()) is None


def suggestion(word: str, words: Iterable[str]) -> str | None:
    """``did you mean …?`` when something is close enough."""
    import difflib

    close = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean {close[0]}?" if close else None
