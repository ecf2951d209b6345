"""APPLY, in a process of its own: the first lines of a share's relay.

It is started by path, and imports its own two modules past their packages: of all the rest it needs nothing, and what
is not loaded costs no memory and no time. A module that is imported was compiled once; a program is, at every start.

    python -I -S start.py '{…}'    as in relay
"""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

_PACKAGE = "reconciler.backends.qemu.shares"


def main() -> None:
    """Comes back when its QEMU has let go."""
    sys.modules |= _packages()
    from reconciler.backends.qemu.shares.relay import Relay

    Relay(json.loads(sys.argv[1])).run()


def _packages() -> dict[str, ModuleType]:
    """Ours, as empty folders of modules."""
    place, found = os.path.dirname(os.path.abspath(__file__)), {}
    name = _PACKAGE
    while name:
        found[name] = ModuleType(name)
        found[name].__path__ = [place]
        place, name = os.path.dirname(place), name.rpartition(".")[0]
    return found


if __name__ == "__main__":
    main()
