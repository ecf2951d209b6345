"""Bottom of every room: where something stands (Mark), what is wrong (Problem), and the exceptions.

Exceptions are named by what the caller must do about them; they carry Problems, which people read.
Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a manifest; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person has to know: one line, and how to get out of it.

    summary: one line, lower case, without a full stop: ``memory: expected a size such as "2GiB", got "two gigs"``
    subject: what it is about, as people write it: ``Container/web``
    detail:  more lines, such as a guest's last words
    hint:    what to do next
    """

    summary: str
    mark: Mark | None = None
    subject: str | None = None
    detail: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        parts = [str(part) for part in (self.mark, self.subject) if part is not None]
        lines = [": ".join([*parts, self.summary])]
        if self.detail:
            lines += [f"  | {line}" for line in self.detail.rstrip("\n").splitlines()]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class ReconcilerError(Exception):
    """Anything we name ourselves (exit code 1). Whatever else escapes is a bug of ours (exit code 3)."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ManifestError(ReconcilerError):
    """The manifests are wrong: the user edits them. Carries every problem found, never only the first."""


class UsageError(ReconcilerError):
    """The command was called in a way that cannot work."""


class Locked(ReconcilerError):
    """Somebody else is applying to the same environment: wait, or see who."""


class PlanStale(ReconcilerError):
    """The world has moved since the saved plan was made: plan again."""


class BackendError(ReconcilerError):
    """A backend could not do what it was asked to."""

    @property
    def problem(self) -> Problem:
        """The first (usually only) problem."""
        return self.problems[0]


class Unreachable(BackendError):
    """No answer: we know nothing about what is there. Hold; never create, replace or prune because of it."""


class Refused(BackendError):
    """A clear no: trying the same again is useless until something changes."""


class Interrupted(BackendError):
    """It may or may not have happened: observe again before deciding anything."""


class GuestFailed(BackendError):
    """The backend did its part, the guest did not come up; ``detail`` holds the guest's own last words."""
