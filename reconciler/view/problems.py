"""VIEW: problems as ``file:line:column: subject: summary``, their detail, and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.problems import Problem
from reconciler.view.text import Line, clean, clean_block, line


def problem_lines(problems: Iterable[Problem], indent: int = 0) -> Iterator[Line]:
    """Each problem as architecture.md's message form says; nothing in it can drive a terminal."""
    space = " " * indent
    for problem in problems:
        head = ": ".join(clean(str(part)) for part in (problem.mark, problem.subject) if part is not None)
        yield line(space, (f"{head}: " if head else "", "bold"), (clean(problem.summary), "bad"))
        for detail in clean_block(problem.detail or ""):
            yield line(f"{space}  | ", (detail, "dim"))
        if problem.hint:
            yield line(f"{space}  ", ("hint:", "note"), f" {clean(problem.hint)}")
