"""``reconciler version``."""

from __future__ import annotations

import argparse
import sys


def run(_arguments: argparse.Namespace) -> int:
    """Print our version and Python's."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("guest-reconciler")
    except PackageNotFoundError:
        ours = "(not installed)"
    sys.stdout.write(f"reconciler {ours} (Python {platform.python_version()})\n")
    return 0
