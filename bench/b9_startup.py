"""B9: what a command costs before it does anything: ``--help``, and ``validate`` of one file, as whole processes.

As it is when the wheel is installed: an editable install, which a clone has, makes every Python in it slower by 15 ms.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from bench.measure import absolute, alternate, process

MANIFEST = """\
apiVersion: reconciler/v1
kind: Container
metadata: {name: web}
spec: {image: busybox, memory: 64MiB}
---
apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox}
spec: {type: container, source: {build: {recipe: busybox}}}
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="reconciler-bench-") as folder:
        Path(folder).chmod(0o700)
        manifest = Path(folder) / "web.yaml"
        manifest.write_text(MANIFEST)
        state = {"RECONCILER_STATE_DIR": f"{folder}/state"}
        python, command = _installed(Path(folder))
        figures = alternate(
            {
                "python -c pass": process([python, "-c", "pass"]),
                "reconciler --help": process([python, command, "--help"], state),
                "reconciler validate": process([python, command, "validate", str(manifest)], state),
            },
            rounds=20,
        )
    goals = {
        "python -c pass": (figures["python -c pass"], 0.012),
        "reconciler --help": (figures["reconciler --help"], 0.060),
        "reconciler validate, one file": (figures["reconciler validate"], 0.120),
    }
    print(absolute("B9  start-up, whole process", goals))
    return 0


def _installed(folder: Path) -> tuple[str, str]:
    """A Python that finds us and what we need as plain folders; and the command."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    [packages] = (folder / "venv").glob("lib/python*/site-packages")
    root = Path(__file__).resolve().parents[1]
    (packages / "found.pth").write_text(f"{root}\n{sysconfig.get_path('purelib')}\n")
    command = folder / "reconciler"
    command.write_text("import sys\nfrom reconciler.cli import main\nsys.exit(main())\n")
    return str(folder / "venv" / "bin" / "python"), str(command)


if __name__ == "__main__":
    sys.exit(main())
