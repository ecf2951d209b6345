"""B5: a container's config edited by hand → as declared again, against one ``lxc config set`` and LXD's event of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.measure import alternate, table
from bench.watching import Lifecycle, Watch, watching
from bench.world import World, world

ROUNDS = 10
GOAL = 1.2
UPDATED = "instance-updated"


def main() -> int:
    with world() as here:
        folder = here.manifests(1, "running", "drift")
        told, name = Lifecycle(here), "drift1-0"
        with watching(here, folder) as watch:
            watch.until("InSync")
            source = {"type": "image", "fingerprint": here.fingerprint()}
            here.call("POST", "/1.0/instances", {"name": "bare", "source": source})
            here.call("PUT", "/1.0/instances/bare/state", {"action": "start", "timeout": 30})
            figures = alternate(
                {
                    "watch": lambda: _drifted(here, watch, told, name),
                    "lxc config set": lambda: _set(here, told),
                },
                ROUNDS,
            )
        here.clear()
    print(table("B5  memory limit edited by hand → back", "watch", figures, ("lxc config set", GOAL)))
    return 0


def _drifted(here: World, watch: Watch, told: Lifecycle, name: str) -> float:
    time.sleep(0.3)
    told.skip()
    here.call("PATCH", f"/1.0/instances/{name}", {"config": {"limits.memory": "32MiB"}})
    began = told.until(name, UPDATED)
    ended = told.until(name, UPDATED)
    watch.until("Ready", f"Container/{name}")
    return ended - began


def _set(here: World, told: Lifecycle) -> float:
    time.sleep(0.3)
    told.skip()
    environment = {**os.environ, "LXD_DIR": str(here.socket.parent)}
    began = time.perf_counter()
    subprocess.run(["lxc", "config", "set", "bare", "limits.memory", "32MiB"], env=environment, check=True)
    return told.until("bare", UPDATED) - began


if __name__ == "__main__":
    sys.exit(main())
