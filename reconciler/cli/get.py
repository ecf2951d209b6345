"""``reconciler get``: what is there, straight from the backends, and what a watch knows of it. Ours only, but for
``--all``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from reconciler.cli import DONE, PROBLEM, watched
from reconciler.cli.lookup import Seen, absent, look, probe
from reconciler.cli.naming import address, check_kind, is_guest_name, is_named, resource_id
from reconciler.cli.screen import show, show_json, show_problems, tell
from reconciler.model import Observed
from reconciler.problems import Problem
from reconciler.view.documents import Document, resource_document
from reconciler.view.resources import resource_table
from reconciler.view.text import clean, line

if TYPE_CHECKING:
    from reconciler.watch.client import Answered


def run(arguments: argparse.Namespace) -> int:
    """List it; a backend that does not answer is a problem, and the others are shown all the same."""
    if arguments.target and not _is_one(arguments.target):
        check_kind(arguments.target)
    elif "/" in (arguments.target or "") and address(arguments.target) is None:
        resource_id(arguments.target)
    watches = watched.ask(arguments.environment)
    with look(arguments, watched.hosts(watches)) as seen:
        chosen = [one for one in seen.resources if _is_chosen(one, arguments)]
        _show(seen, sorted(chosen, key=lambda one: (one.id, one.backend)), watches, arguments)
    trouble = _trouble(seen, chosen, watches, arguments)
    show_problems(trouble)
    return PROBLEM if trouble else DONE


def _is_one(target: str) -> bool:
    """Whether it names a single resource, and not a kind."""
    return "/" in target or is_guest_name(target)


def _is_chosen(one: Observed, arguments: argparse.Namespace) -> bool:
    target = arguments.target or ""
    named = _is_one(target)
    if not (is_named(one, target) if named else target in ("", one.id.kind)):
        return False
    if arguments.environment and one.environment != arguments.environment:
        return False
    return one.owned or arguments.all or named


def _show(seen: Seen, chosen: list[Observed], watches: list[Answered], arguments: argparse.Namespace) -> None:
    form = arguments.output
    if form == "name":
        show(line(clean(str(one.id))) for one in chosen)
        return
    known = watched.known(watches, seen, probe(seen, chosen))
    if form in ("json", "yaml"):
        _show_documents([_document(one, known) for one in chosen], form)
        return
    if chosen:
        show(resource_table(chosen, known.conditions, wide=form == "wide"))
    elif not arguments.target:
        tell([line("Nothing of ours is here.")])
    tell(watched.lines(watches))
    tell(watched.missing_lines({} if arguments.target else known.missing))


def _document(one: Observed, known: watched.Known) -> Document:
    return resource_document(one, known.conditions[one.backend, one.id], known.looked.get((one.backend, one.id)))


def _show_documents(documents: list[Document], form: str) -> None:
    if form == "json":
        show_json(documents)
        return
    from reconciler.view.yaml import to_yaml

    sys.stdout.write(to_yaml(documents))


def _trouble(
    seen: Seen, chosen: list[Observed], watches: list[Answered], arguments: argparse.Namespace
) -> list[Problem]:
    if not _is_one(arguments.target or "") or chosen:
        return seen.problems
    why = watched.known(watches, seen, {}).missing.get(arguments.target)
    if why is None:
        return absent(seen, arguments.target)
    return [Problem("it is declared, and not there", subject=arguments.target, detail=f"{why.reason}: {why.message}")]
