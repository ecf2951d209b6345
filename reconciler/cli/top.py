"""``reconciler top``: what the guests of ours that run take of processors and memory; once, or until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Mapping
from typing import cast

from reconciler.cli import DONE, PROBLEM
from reconciler.cli.lookup import Seen, find, look
from reconciler.cli.screen import show, show_json, show_problems, tell
from reconciler.model import GUESTS, Observed, Power, ResourceId
from reconciler.ports import Guests, Usage
from reconciler.problems import BackendError, Problem, UsageError
from reconciler.view.text import line
from reconciler.view.usage import Taken, usage_document, usage_table

_MEASURED = 0.5
"""Seconds between two readings, whose difference is what is shown."""
_WATCHED = 2.0
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"

Reading = Mapping[tuple[str, ResourceId], Usage]


def run(arguments: argparse.Namespace) -> int:
    """Show it. A backend that does not answer is a problem, and the others are shown all the same."""
    if not arguments.watch:
        with look(arguments) as seen:
            taken, problems = _measure(seen, _chosen(seen, arguments), _MEASURED)
        _show(taken, arguments.output)
        show_problems(problems)
        return PROBLEM if problems else DONE
    if arguments.output != "table" or not sys.stdout.isatty():
        raise UsageError(Problem("--watch needs a terminal", hint="without it top shows everything once"))
    while True:  # until Ctrl-C; guests come and go meanwhile, so everything is looked at anew
        with look(arguments) as seen:
            taken, problems = _measure(seen, _chosen(seen, arguments), _WATCHED)
        sys.stdout.write(_HOME_AND_CLEAR)
        _show(taken, "table")
        show_problems(problems)


def _chosen(seen: Seen, arguments: argparse.Namespace) -> list[Observed]:
    """Guests of ours that run; the one that was named, whosever it is."""
    if arguments.name:
        one = find(seen, arguments.name, arguments.environment)
        if one.id.kind not in GUESTS or one.power is not Power.RUNNING:
            raise UsageError(Problem("expected a guest that runs", subject=str(one.id)))
        return [one]
    running = [one for one in seen.world if one.id.kind in GUESTS and one.owned and one.power is Power.RUNNING]
    return [one for one in running if arguments.environment in (None, one.environment)]


def _measure(seen: Seen, chosen: Collection[Observed], pause: float) -> tuple[list[Taken], list[Problem]]:
    """Two readings, and what was used between them."""
    homes = {one.backend for one in chosen}
    problems = {str(problem): problem for problem in seen.problems}
    before, began = _read(seen, homes, problems), time.monotonic()
    time.sleep(pause)
    after, passed = _read(seen, homes, problems), time.monotonic() - began
    taken = []
    for one in chosen:
        first, last = before.get((one.backend, one.id)), after.get((one.backend, one.id))
        if first is not None and last is not None:
            cpu = max(0.0, last.cpu - first.cpu) / passed * 100
            uptime = None if last.started is None else max(0.0, time.time() - last.started)
            taken.append(Taken(one, cpu, last.memory, last.processes, uptime))
    return taken, list(problems.values())


def _read(seen: Seen, homes: Collection[str], problems: dict[str, Problem]) -> Reading:
    found: dict[tuple[str, ResourceId], Usage] = {}
    for name in sorted(homes):
        try:
            usage = cast(Guests, seen.backends[name]).usage()
        except BackendError as error:
            problems |= {str(problem): problem for problem in error.problems}
            continue
        found |= {(name, id): one for id, one in usage.items()}
    return found


def _show(taken: list[Taken], form: str) -> None:
    if form == "json":
        show_json(usage_document(taken))
    elif taken:
        show(usage_table(taken))
    else:
        tell([line("Nothing of ours runs.")])
