"""B3: a file saved → the first question to the backend goes out; few and many files; the debounce is taken off.

Only looking, so that the many need not exist. The LXD stands behind a door that writes down when a request comes.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from bench.doorway import Doorway, doorway
from bench.measure import absolute, alternate, table
from bench.watching import Watch, watching
from bench.world import World, world
from reconciler.watch.settle import QUIET

FEW, MANY = 10, int(os.environ.get("BENCH_COUNT", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "100"))
GOAL, HALF, NEARLY_ALL = 1.3, 0.015, 0.06


def main() -> int:
    with world() as here:
        few, many = here.manifests(FEW, prefix="few"), here.manifests(MANY, prefix="many")
        with (
            doorway(here.folder / "few.socket", here.socket) as first,
            doorway(here.folder / "many.socket", here.socket) as second,
            watching(_apart(here, first), few, "--observe-only", "--resync", "1h") as one,
            watching(_apart(here, second), many, "--observe-only", "--resync", "1h") as other,
        ):
            for watch in (one, other):
                watch.until("Read")
            time.sleep(5.0 + MANY / 2000)  # the first looks at everything
            contestants = {
                f"{MANY} resources": lambda: _saved(other, second),
                f"{FEW} resources": lambda: _saved(one, first),
            }
            figures = alternate(contestants, ROUNDS)
    print(table("B3  file saved → first request", f"{MANY} resources", figures, (f"{FEW} resources", GOAL)))
    print(absolute("B3  the same, beyond the debounce", {name: (figure, HALF) for name, figure in figures.items()}))
    for name, figure in figures.items():
        print(f"  {name:34} p99 {figure.quantile(0.99) * 1000:.1f} ms  goal {NEARLY_ALL * 1000:.0f} ms")
    return 0


_NUMBERS = itertools.count(1)


def _apart(here: World, door: Doorway) -> World:
    """Both are the environment ``default``: each has a state folder of its own."""
    state = here.folder / f"state-{door.path.stem}"
    return World(
        here.folder,
        door.path,
        {**here.environment, "RECONCILER_STATE_DIR": str(state), "LXD_SOCKET": str(door.path)},
    )


def _saved(watch: Watch, door: Doorway) -> float:
    file: Path = watch.folder / "00003.yaml"
    beside = file.with_name(".new")
    beside.write_text(file.read_text().replace("purpose: ", f"purpose: n{next(_NUMBERS)}"))
    door.skip()
    began = time.perf_counter()
    beside.replace(file)
    took = door.until() - began - QUIET
    time.sleep(0.3)
    return took


if __name__ == "__main__":
    sys.exit(main())
