"""``reconciler validate``: load, compose, validate, resolve, ask the policy. No backend is called."""

from __future__ import annotations

import argparse

from reconciler.cli import DONE, PROBLEM
from reconciler.cli.screen import show, show_json
from reconciler.cli.session import verdict_of
from reconciler.problems import ManifestError
from reconciler.view.text import line


def run(arguments: argparse.Namespace) -> int:
    """Every problem of all files at once, or how many resources there are."""
    if arguments.output == "json":
        return _as_json(arguments)
    wanted = verdict_of(arguments.paths)
    count = len(wanted.resources)
    words = f": {count} resource{'' if count == 1 else 's'} in environment {wanted.environment}"
    show([line(("Valid", "good"), words)])
    return DONE


def _as_json(arguments: argparse.Namespace) -> int:
    from reconciler.view.documents import problem_document

    try:
        wanted = verdict_of(arguments.paths)
    except ManifestError as error:
        show_json({"valid": False, "problems": [problem_document(problem) for problem in error.problems]})
        return PROBLEM
    show_json({"valid": True, "environment": wanted.environment, "resources": list(wanted.resources)})
    return DONE
