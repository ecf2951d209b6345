"""What every verb says goes through here: results to stdout, the rest to stderr, colour only where it belongs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from reconciler.problems import Problem
from reconciler.view.text import Line, has_colour, render


def show(lines: Iterable[Line]) -> None:
    """The result, to stdout."""
    _write(sys.stdout, lines)


def tell(lines: Iterable[Line]) -> None:
    """Whatever is not the result, to stderr."""
    _write(sys.stderr, lines)


def show_problems(problems: Iterable[Problem]) -> None:
    """Problems, to stderr."""
    from reconciler.view.problems import problem_lines

    tell(problem_lines(problems))


def show_json(document: Any) -> None:
    """The result as JSON, to stdout."""
    import json

    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def is_terminal() -> bool:
    """Whether a person can be asked and will see the question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _write(stream: TextIO, lines: Iterable[Line]) -> None:
    stream.write(render(lines, has_colour(stream, dict(os.environ))))
    stream.flush()
