"""B6, B7, B10: the watch over a thousand stopped containers: started again, what it holds, and what idleness costs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench.measure import absolute, alternate, process, table
from bench.watching import Watch, cpu, watching
from bench.world import World, world
from reconciler.backends.lxd import daemon

COUNT = int(os.environ.get("BENCH_COUNT", "1000"))
ROUNDS = 3
IDLE = 60.0
READY, MEMORY, OURS, LXDS = 0.6, {100: 45.0, 1000: 60.0, 10000: 170.0}, 0.001, 0.005


def main() -> int:
    with world() as here:
        folder = here.manifests(COUNT)
        here.run("apply", "--yes", str(folder))
        plan = process(here.reconciler("plan", str(folder)), here.environment)
        figures = alternate({"watch, until in sync": lambda: _ready(here, folder), "reconciler plan": plan}, ROUNDS)
        with watching(here, folder, "--resync", "10m") as watch:
            watch.until("InSync")
            time.sleep(5.0)
            memory, idle, theirs = watch.memory(), *_idle(here, watch)
            steps = watch.steps()
        here.clear()
    print(table(f"B10  started again over {COUNT}", "watch, until in sync", figures))
    print(absolute("B10  the same", {"watch, until in sync": (figures["watch, until in sync"], READY)}))
    print(f"B10  steps begun: {steps} (goal 0)")
    goal = MEMORY.get(COUNT)
    print(f"B6   resident at {COUNT}: {memory:.0f} MiB" + (f" (goal {goal:.0f})" if goal else ""))
    print(
        f"B7   idle for {IDLE:.0f} s: ours {idle:.2%} of a core (goal {OURS:.1%}), LXD {theirs:.2%} (goal {LXDS:.1%})"
    )
    return 0


def _ready(here: World, folder: Path) -> float:
    with watching(here, folder) as watch:
        return watch.until("InSync") - watch.began


def _idle(here: World, watch: Watch) -> tuple[float, float]:
    """Shares of a core that we, and LXD, use while nothing happens."""
    lxd = daemon.find(here.socket.parent)
    assert lxd is not None
    ours, theirs = watch.cpu(), cpu(lxd.pid)
    time.sleep(IDLE)
    return (watch.cpu() - ours) / IDLE, (cpu(lxd.pid) - theirs) / IDLE


if __name__ == "__main__":
    sys.exit(main())
