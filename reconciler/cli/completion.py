"""``reconciler completion SHELL``: the script that teaches a shell our words."""

from __future__ import annotations

import argparse
import sys


def run(arguments: argparse.Namespace) -> int:
    """Print the script; ``source <(reconciler completion bash)`` uses it."""
    import shtab

    from reconciler.cli.parser import build

    sys.stdout.write(shtab.complete(build(), arguments.shell) + "\n")
    return 0
