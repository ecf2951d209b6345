"""B3: a file saved → what is wanted is known anew, and the first question to the backend goes out: few and many files.

Only looking, so that the many need not exist; the debounce is taken off.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from bench.measure import alternate, table
from bench.watching import Watch, watching
from bench.world import World, world
from reconciler.watch.settle import QUIET

FEW, MANY = 10, int(os.environ.get("BENCH_COUNT", "10000"))
ROUNDS = 20
GOAL = 1.3


def main() -> int:
    with world() as here:
        few, many = here.manifests(FEW, prefix="few"), here.manifests(MANY, prefix="many")
        with (
            watching(_apart(here, "few"), few, "--observe-only", "--resync", "1h") as one,
            watching(_apart(here, "many"), many, "--observe-only", "--resync", "1h") as other,
        ):
            for watch in (one, other):
                watch.until("Read")
                time.sleep(5.0)
            figures = alternate(
                {f"{MANY} resources": lambda: _saved(other), f"{FEW} resources": lambda: _saved(one)}, ROUNDS
            )
    print(table("B3  file saved → read, beyond the debounce", f"{MANY} resources", figures, (f"{FEW} resources", GOAL)))
    return 0


_NUMBERS = itertools.count(1)


def _apart(here: World, name: str) -> World:
    """Both are the environment ``default``: each has a state folder of its own."""
    state = here.folder / f"state-{name}"
    return World(here.folder, here.socket, {**here.environment, "RECONCILER_STATE_DIR": str(state)})


def _saved(watch: Watch) -> float:
    file: Path = watch.folder / "00003.yaml"
    beside = file.with_name(".new")
    beside.write_text(file.read_text().replace("purpose: ", f"purpose: n{next(_NUMBERS)}"))
    began = time.perf_counter()
    beside.replace(file)
    took = watch.until("Read") - began - QUIET
    time.sleep(0.5)
    return took


if __name__ == "__main__":
    sys.exit(main())
