"""The command line's grammar: arguments that several verbs share, and how values are read."""

from __future__ import annotations

import argparse

FILES = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "fish": "(__fish_complete_path (commandline -ct))",
    "tcsh": "f",
}
"""What shtab needs to know to complete a path."""


def completed(action: argparse.Action) -> None:
    """Tell shtab that this argument is a path."""
    setattr(action, "complete", FILES)  # noqa: B010  argparse does not declare it


def output(verb: argparse.ArgumentParser, *forms: str) -> None:
    verb.add_argument("-o", "--output", choices=forms, default=forms[0], help=f"result as (default: {forms[0]})")


def count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 256):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 256, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def duration(text: str) -> float:
    from reconciler.quantities import duration

    try:
        return float(text) if text.isascii() and text.isdigit() else duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def timeout(verb: argparse.ArgumentParser) -> None:
    words = "limit of a step (default: 300s)"
    verb.add_argument("--timeout", type=duration, default=300.0, metavar="TIME", help=words)
