"""``reconciler devices``: what the host has that a guest could be given, and how a manifest says so."""

from __future__ import annotations

import argparse
import sys

from reconciler.backends.host.listing import Found, listing
from reconciler.cli import DONE
from reconciler.cli.naming import resource_id
from reconciler.cli.screen import show, show_json, tell
from reconciler.model import GUESTS, Json
from reconciler.problems import Problem, UsageError
from reconciler.view.text import Span, clean, line, table
from reconciler.view.yaml import to_yaml


def run(arguments: argparse.Namespace) -> int:
    """A table; as YAML one whole ``Device`` each, to be put into a manifest as it is."""
    guest = resource_id(arguments.attach_to)
    if guest.kind not in GUESTS:
        raise UsageError(Problem(f"{guest} is no guest", hint="such as VirtualMachine/vm or Container/web"))
    found = [one for one in listing() if arguments.kind in (None, one.kind)]
    if arguments.output == "yaml":
        sys.stdout.write("".join(f"---\n{to_yaml(_document(one, str(guest)))}" for one in found))
    elif arguments.output == "json":
        show_json([_facts(one, str(guest)) for one in found])
    elif found:
        show(table(["DEVICE", "KIND", "PLACE", "WHAT", "NOTE"], [_row(one) for one in found]))
    if not found:
        tell([line(f"This host has no {arguments.kind or ''} devices to give.".replace("  ", " "))])
    return DONE


def _row(one: Found) -> list[str | Span]:
    return [(clean(one.name), "bold"), one.kind, clean(one.place), clean(one.words), clean(one.note)]


def _facts(one: Found, guest: str) -> Json:
    facts = {"name": one.name, "kind": one.kind, "place": one.place, "words": one.words, "note": one.note}
    return {**facts, "manifest": _document(one, guest)}


def _document(one: Found, guest: str) -> Json:
    spec = {"match": one.match, "attachTo": guest}
    return {"apiVersion": "reconciler/v1", "kind": "Device", "metadata": {"name": one.name}, "spec": spec}
