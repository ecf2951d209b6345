"""B9: what a command costs before it does anything: ``--help``, and ``validate`` of one file, as whole processes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench import installed
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
        command = installed.command()
        figures = alternate(
            {
                "python -c pass": process([installed.python(), "-c", "pass"]),
                "reconciler --help": process([*command, "--help"], state),
                "reconciler validate": process([*command, "validate", str(manifest)], state),
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


if __name__ == "__main__":
    sys.exit(main())
