"""``reconciler describe``: everything about one resource, and what was done to it lately."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from reconciler.cli import DONE, watched
from reconciler.cli.lookup import find, look, probe
from reconciler.cli.screen import show, show_json, tell
from reconciler.model import Observed, ResourceId
from reconciler.paths import state_dir
from reconciler.record import History
from reconciler.view.documents import resource_document
from reconciler.view.resources import description

if TYPE_CHECKING:
    from reconciler.watch.client import Answered

_RUNS = 200  # how far back the history is searched
_SHOWN = 10


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    watches = watched.ask(arguments.environment)
    with look(arguments, watched.hosts(watches)) as seen:
        one = find(seen, arguments.target, arguments.environment)
        known = watched.known(watches, seen, probe(seen, [one]))
    conditions = known.conditions[one.backend, one.id]
    if arguments.output == "table":
        show(description(one, conditions, _lately(one.id)))
        tell(watched.lines([watch for watch in watches if _is_about(watch, one)]))
        return DONE
    document = resource_document(one, conditions, known.looked.get((one.backend, one.id)))
    if arguments.output == "json":
        show_json(document)
    else:
        from reconciler.view.yaml import to_yaml

        sys.stdout.write(to_yaml(document))
    return DONE


def _is_about(watch: Answered, one: Observed) -> bool:
    return watch.status is None or watch.status["environment"] == one.environment


def _lately(id: ResourceId) -> list[str]:
    """The last things that were done to it, newest first."""
    history = History(state_dir())
    try:
        lines = []
        for entry in history.runs(_RUNS):
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
            lines += [f"{when}  {row['verb']}  {row['result']}" for row in entry.outcomes if row["id"] == str(id)]
        return lines[:_SHOWN]
    finally:
        history.close()
