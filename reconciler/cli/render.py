"""``reconciler render``: what an environment comes to, as YAML with the place of every field, or as JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from reconciler.cli import DONE
from reconciler.cli.screen import show_json
from reconciler.cli.session import rendered
from reconciler.manifest import Document, locate, locate_all
from reconciler.problems import Mark
from reconciler.view.text import clean
from reconciler.view.yaml import Path, leaves, to_yaml


def run(arguments: argparse.Namespace) -> int:
    """Secrets show as ``<secret NAME>``; nothing is asked for them."""
    composed = rendered(arguments.paths)
    if arguments.output == "json":
        show_json([_as_json(one) if arguments.origins else one.data for one in composed.documents])
        return DONE
    for number, document in enumerate(composed.documents):
        places = _places(document)
        sys.stdout.write("---\n" if number else "")
        sys.stdout.write(to_yaml(document.data, partial(_noted, places)))
    return DONE


def _places(document: Document) -> Mapping[Path, str]:
    """Where each field was written; and behind it, where the values were given that are in it."""
    found = {path: _line(mark) for path, mark in locate_all(document, list(leaves(document.data))).items()}
    for path, values in document.values.items():
        given = [f"{name}: {_line(locate(one.by, one.place))}" for name, one in values.items()]
        found[path] = ", ".join([found[path], *given])
    return found


def _noted(places: Mapping[Path, str], path: Path) -> str:
    return places[path]


def _line(mark: Mark) -> str:
    return clean(f"{mark.file}:{mark.line}")


def _as_json(document: Document) -> dict[str, Any]:
    origins = {".".join(map(str, path)): place for path, place in _places(document).items()}
    return {"document": document.data, "origins": origins}
