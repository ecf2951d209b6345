"""What LXD answered, as it is, and what that means for us: the one place where HTTP statuses become our errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.backends.lxd.address import Address
from reconciler.problems import Interrupted, Problem, Refused, Unreachable

NOT_FOUND = 404
CONFLICT = 409
ETAG_MISMATCH = 412
BUSY = (423, 429, 502, 503, 504)


_LIST = '"metadata":['
_NEXT = re.compile(r"[\s,]*([^\s,])")
LARGEST = 256 << 20
"""Bytes of an answer; an LXD in a VM is only as honest as the VM."""


class TooMuch(Refused):
    """The answer is longer than whoever asked can use."""

    def __init__(self, most: int) -> None:
        super().__init__(Problem(f"LXD's answer is longer than {most >> 20} MiB"))


class Missing(Refused):
    """The thing asked for is not there (HTTP 404)."""


class Conflicting(Refused):
    """A thing of that name is there already (HTTP 409)."""


class Raced(Interrupted):
    """Somebody else changed it since we read it (HTTP 412): nothing was written."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. etag is without its quotes; empty when there was none. headers: by their names in lower case."""

    status: int
    etag: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Reply:
    """What was asked for, and the ETag to write it back with."""

    metadata: Any
    etag: str


def understand(answer: Answer, what: str, writing: bool) -> dict[str, Any]:
    """The JSON envelope of a good answer; raises what a bad one means. what: shown, such as ``GET /1.0/instances``."""
    envelope = _envelope(answer)
    if answer.ok and envelope is not None:
        return envelope
    if answer.ok:
        problem = Problem(f"{what}: LXD's answer is not what it should be", detail=_excerpt(answer.body))
        raise Interrupted(problem) if writing else Unreachable(problem)
    raise refusal(answer.status, str((envelope or {}).get("error") or _excerpt(answer.body)), what)


def each(answer: Answer, what: str) -> Iterator[Any]:
    """The members of the list that a good answer holds, one after the other; raises what a bad one means.

    Ten thousand instances as they come are a hundred times what becomes of one: they are never all there at once.
    """
    text, start = "", -1
    with suppress(ValueError):
        text = answer.body.decode()
        start = text.find(_LIST)
    head = replace(answer, body=f"{text[: start + len(_LIST)]}]}}".encode()) if start >= 0 else answer
    if start < 0 or not answer.ok or _envelope(head) is None:
        yield from understand(answer, what, writing=False).get("metadata") or ()
        return
    del answer, head
    at, read = start + len(_LIST), json.JSONDecoder().raw_decode
    try:
        while (found := _NEXT.match(text, at)) is not None and found[1] != "]":
            one, at = read(text, found.start(1))
            yield one
    except ValueError:
        found = None
    if found is None:
        raise Unreachable(Problem(f"{what}: LXD's answer is not what it should be"))


def refusal(status: int, message: str, what: str) -> Refused | Unreachable | Interrupted:
    """The exception for an HTTP status that says no."""
    problem = Problem(message or f"LXD answered {status}", detail=f"{what} was answered {status}")
    if status == NOT_FOUND:
        return Missing(problem)
    if status == CONFLICT:
        return Conflicting(problem)
    if status == ETAG_MISMATCH:
        return Raced(Problem("somebody else changed it at the same moment", hint="plan again"))
    if status in BUSY:
        return Unreachable(problem)
    if status in (401, 403):
        return Refused(Problem(message, hint="this LXD does not trust the client certificate: see doctor"))
    return Refused(problem)


@contextmanager
def understood(address: Address, writing: bool = False) -> Iterator[None]:
    """An LXD elsewhere (inside of a VM, on another host) may answer anything; what makes no sense is silence. With the
    one of this host it is our own mistake. writing: it may have done what it was asked for."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if address.socket is not None:
            raise
        words = f"what LXD at {address} says makes no sense"
        problem = Problem(words, detail=f"{type(error).__name__}: {error}")
        raise (Interrupted if writing else Unreachable)(problem) from error


def is_missing_project(error: Refused) -> bool:
    """Whether it is not the thing that is missing, but the project that we look for it in."""
    return "roject not found" in error.problem.summary


def _envelope(answer: Answer) -> dict[str, Any] | None:
    try:
        envelope = json.loads(answer.body)
    except ValueError:
        return None
    return envelope if isinstance(envelope, dict) and "type" in envelope else None


def _excerpt(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")
