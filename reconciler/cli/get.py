"""``reconciler get``: what is there, straight from the backends; ours only, unless ``--all``."""

from __future__ import annotations

import argparse
import sys

from reconciler.cli import DONE, PROBLEM
from reconciler.cli.lookup import Seen, absent, look, probe
from reconciler.cli.naming import address, check_kind, is_named, resource_id
from reconciler.cli.screen import show, show_json, show_problems, tell
from reconciler.model import Observed
from reconciler.problems import Problem
from reconciler.view.documents import resource_document
from reconciler.view.resources import resource_table
from reconciler.view.text import clean, line


def run(arguments: argparse.Namespace) -> int:
    """List it; a backend that does not answer is a problem, and the others are shown all the same."""
    if arguments.target and address(arguments.target) is None:
        check_kind(arguments.target.partition("/")[0])
        if "/" in arguments.target:
            resource_id(arguments.target)
    with look(arguments) as seen:
        chosen = [one for one in seen.resources if _is_chosen(one, arguments)]
        _show(seen, sorted(chosen, key=lambda one: (one.id, one.backend)), arguments.output, arguments.target)
    trouble = _trouble(seen, chosen, arguments)
    show_problems(trouble)
    return PROBLEM if trouble else DONE


def _is_chosen(one: Observed, arguments: argparse.Namespace) -> bool:
    target = arguments.target or ""
    named = "/" in target
    if not (is_named(one, target) if named else target in ("", one.id.kind)):
        return False
    if arguments.environment and one.environment != arguments.environment:
        return False
    return one.owned or arguments.all or named


def _show(seen: Seen, chosen: list[Observed], form: str, asked: str | None) -> None:
    if form == "name":
        show(line(clean(str(one.id))) for one in chosen)
        return
    conditions = probe(seen, chosen)
    documents = [resource_document(one, conditions[one.backend, one.id]) for one in chosen]
    if form == "json":
        show_json(documents)
    elif form == "yaml":
        from reconciler.view.yaml import to_yaml

        sys.stdout.write(to_yaml(documents))
    elif chosen:
        show(resource_table(chosen, conditions, wide=form == "wide"))
    elif not asked:
        tell([line("Nothing of ours is here.")])


def _trouble(seen: Seen, chosen: list[Observed], arguments: argparse.Namespace) -> list[Problem]:
    if "/" in (arguments.target or "") and not chosen:
        return absent(seen, arguments.target)
    return seen.problems
