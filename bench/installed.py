"""The product as it is when its wheel is installed: an editable install, which a clone has, costs every start 15 ms."""

from __future__ import annotations

import functools
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


@functools.cache
def python() -> str:
    """A Python that finds us, and what we need, as plain folders."""
    environment = _folder() / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    root = Path(__file__).resolve().parents[1]
    (packages / "found.pth").write_text(f"{root}\n{sysconfig.get_path('purelib')}\n")
    return str(environment / "bin" / "python")


@functools.cache
def command() -> tuple[str, ...]:
    """How our command line begins: the script that an installer writes, by that Python."""
    script = _folder() / "reconciler"
    script.write_text("import sys\nfrom reconciler.cli import main\nsys.exit(main())\n")
    return python(), str(script)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="rbench-installed-")  # removed when the bench ends


def _folder() -> Path:
    return Path(_scratch().name)
