"""``watch``, first of all: where much is declared, LXD is asked at once, and thinks while the rest of us is loaded."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress

from reconciler.backends.lxd.address import find_socket
from reconciler.backends.lxd.ahead import begin
from reconciler.paths import state_dir

_MANY = 200
"""Files of manifests: fewer are read sooner than LXD would be asked."""


def run(arguments: argparse.Namespace) -> int:
    """Ask, and then watch."""
    _ask(arguments.paths)
    from reconciler.cli import watch

    return watch.run(arguments)


def _ask(paths: Sequence[str]) -> None:
    with suppress(OSError):
        if sum(len(os.listdir(path)) for path in paths if os.path.isdir(path)) >= _MANY:
            begin(find_socket(state_dir(), os.environ)[0])
