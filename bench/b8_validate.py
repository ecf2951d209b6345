"""B8: parse and validate 10,000 small manifests (22 lines each), whole process, the first time and again.

Against the same libraries by hand with nothing around them (the limit), and the naive way (measured on 200, scaled).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench.measure import Contestant, absolute, alternate, process, table

FILES = 10_000
NAIVE = 200
ROUNDS = 5
MANIFEST = """\
apiVersion: reconciler/v1
kind: Container
metadata:
  name: web-{number}
  labels:
    tier: front
    zone: a
spec:
  image: images:{fingerprint}
  power: running
  cpus: 2
  memory: 512MiB
  config:
    limits.processes: "500"
    boot.autostart: true
  devices:
    eth0:
      type: nic
      network: lxdbr0
    root:
      type: disk
      path: /
      pool: default
"""
LOAD = "import sys; from reconciler import validation; validation.load_manifests(sys.argv[1:])"


def main() -> int:
    count = int(os.environ.get("BENCH_FILES", FILES))
    with tempfile.TemporaryDirectory(prefix="reconciler-bench-") as name:
        here = Path(name)
        manifests = here / "manifests"
        manifests.mkdir()
        for number in range(count):
            (manifests / f"web-{number:05}.yaml").write_text(MANIFEST.format(number=number, fingerprint="a" * 64))
        _measure(here, manifests, count)
    return 0


def _measure(here: Path, manifests: Path, count: int) -> None:
    peer = [sys.executable, str(Path(__file__).parent / "peers" / "bare_validate.py")]
    load = [sys.executable, "-c", LOAD, str(manifests)]
    command = [str(Path(sys.executable).parent / "reconciler"), "validate", str(manifests)]
    naive = process([*peer, "naive", str(manifests), str(min(NAIVE, count))])
    figures = alternate(
        {
            "load + validate, first": _first(load, here / "load"),
            "load + validate, again": process(load, _state(here / "load")),
            "reconciler validate": _first(command, here / "command"),
            "reconciler validate, again": process(command, _state(here / "command")),
            "limit: libraries by hand": process([*peer, "limit", str(manifests)]),
            "naive PyYAML, jsonschema": lambda: naive() * count / min(NAIVE, count),
        },
        rounds=ROUNDS,
    )
    print(table(f"B8  {count} manifests", "load + validate, first", figures))
    goals = {
        "first": (figures["load + validate, first"], 1.5),
        "again, nothing changed": (figures["load + validate, again"], 0.15),
    }
    print(absolute("  with references and policy: see reconciler validate", goals))


def _state(folder: Path) -> dict[str, str]:
    return {"RECONCILER_STATE_DIR": str(folder)}


def _first(command: list[str], state: Path) -> Contestant:
    """Each time as if for the first time."""
    run = process(command, _state(state))

    def clean_run() -> float:
        shutil.rmtree(state, ignore_errors=True)
        return run()

    return clean_run


if __name__ == "__main__":
    sys.exit(main())
