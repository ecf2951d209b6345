"""What of a command's time is the loading of its code: the modules that it loads, and the command with them loaded."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from bench import installed

_LIST = """
import sys
target = sys.argv.pop(1)
from reconciler.cli import main
code = main()
open(target, "w").write("\\n".join(sys.modules))
sys.exit(code)
"""
_LOADED = """
import importlib, sys
for name in sys.argv.pop(1).split():
    try:
        importlib.import_module(name)
    except ImportError:
        pass
from reconciler.cli import main
sys.exit(main())
"""


def modules(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Those that our command with these words has loaded when it ends, in their order."""
    with tempfile.NamedTemporaryFile("r") as file:
        command = [installed.python(), "-c", _LIST, file.name, *words]
        subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
        return file.read().split()


def loaded(names: Sequence[str], words: Sequence[str]) -> list[str]:
    """Our command with these words, as one that loads these modules at its start, whether it needs them or not."""
    return [installed.python(), "-c", _LOADED, " ".join(names), *words]
