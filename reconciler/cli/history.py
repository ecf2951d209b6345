"""``reconciler history``: the runs of the past, newest first."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import suppress

from reconciler.cli import DONE, watched
from reconciler.cli.screen import show, show_json, show_problems, tell
from reconciler.paths import private_dir, state_dir
from reconciler.problems import Problem, ReconcilerError
from reconciler.record import Entry, History
from reconciler.view.text import Span, clean, line, table


def run(arguments: argparse.Namespace) -> int:
    """Show them; values of fields were never written down."""
    running, trouble = _of_watches()
    history = History(private_dir(state_dir()))
    try:
        written = history.runs(arguments.limit)
    finally:
        history.close()
    known = {entry.id for entry in written}
    entries = sorted([*(one for one in running if one.id not in known), *written], key=lambda one: -one.at)
    entries = entries[: arguments.limit]
    if arguments.output == "json":
        show_json([_document(entry) for entry in entries])
    elif entries:
        show(table(["RUN", "AT", "ENVIRONMENT", "BY", "CONVERGED", "WHAT"], [_row(entry) for entry in entries]))
    else:
        tell([line("Nothing was done yet.")])
    show_problems(trouble)
    return DONE


def _of_watches() -> tuple[list[Entry], list[Problem]]:
    """What watches have carried out and not proved yet, and why they cannot write down what they do."""
    entries, trouble = list[Entry](), list[Problem]()
    for watch in watched.ask(None):
        with suppress(ReconcilerError):  # one that does not answer has nothing that is not written
            told = watch.client.get("/v1/history") if watch.status is not None else None
            entries += [Entry(**one) for one in told["runs"]] if told else []
            if told and told["trouble"]:
                subject = f"the watch (process {watch.pid})"
                trouble.append(Problem(f"cannot write its history: {told['trouble']}", subject=subject))
    return entries, trouble


def _document(entry: Entry) -> dict[str, object]:
    return {
        "id": entry.id,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.at)),
        "environment": entry.environment,
        "trigger": entry.trigger,
        "converged": entry.converged,
        "outcomes": list(entry.outcomes),
    }


def _row(entry: Entry) -> list[str | Span]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
    counts = Counter(f"{outcome['verb']} {outcome['result']}" for outcome in entry.outcomes)
    what = ", ".join(f"{count} {words}" for words, count in sorted(counts.items()))
    words: dict[bool | None, Span] = {True: ("yes", "good"), False: ("no", "bad"), None: ("not proved yet", "dim")}
    return [clean(entry.id), when, clean(entry.environment), clean(entry.trigger), words[entry.converged], clean(what)]
