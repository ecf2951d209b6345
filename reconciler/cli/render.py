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
from reconciler.manifest import Document, locate_all
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


def _places(document: Document) -> Mapping[Path, Mark]:
    return locate_all(document, list(leaves(document.data)))


def _noted(places: Mapping[Path, Mark], path: Path) -> str:
    return _line(places[path])


def _line(mark: Mark) -> str:
    return clean(f"{mark.file}:{mark.line}")


def _as_json(document: Document) -> dict[str, Any]:
    origins = {".".join(map(str, path)): _line(mark) for path, mark in _places(document).items()}
    return {"document": document.data, "origins": origins}
