"""``reconciler history``: the runs of the past, newest first."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from reconciler.cli import DONE
from reconciler.cli.screen import show, show_json, tell
from reconciler.paths import private_dir, state_dir
from reconciler.record import Entry, History
from reconciler.view.text import Span, clean, line, table


def run(arguments: argparse.Namespace) -> int:
    """Show them; values of fields were never written down."""
    history = History(private_dir(state_dir()))
    try:
        entries = history.runs(arguments.limit)
    finally:
        history.close()
    if arguments.output == "json":
        show_json([_document(entry) for entry in entries])
    elif entries:
        show(table(["RUN", "AT", "ENVIRONMENT", "BY", "CONVERGED", "WHAT"], [_row(entry) for entry in entries]))
    else:
        tell([line("Nothing was done yet.")])
    return DONE


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
    converged = ("yes", "good") if entry.converged else ("no", "bad")
    return [clean(entry.id), when, clean(entry.environment), clean(entry.trigger), converged, clean(what)]
