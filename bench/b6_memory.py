"""B6: what a watch holds in memory over resources that exist: containers, and disks, which are made sooner.

BENCH_CONTAINERS and BENCH_DISKS name the counts, one after the other (``100,1000,3000``); none: left out. What lies
beyond the largest is read off a straight line through the two largest, and called so. A container is the largest thing
that a folder of manifests holds thousands of; a disk says how much of it is the count alone. (Not a profile: LXD 5.0
cannot list a thousand of them before its own deadline.)
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench.watching import watching
from bench.world import CONTAINER, IMAGE, World, world

GOAL = {100: 45.0, 1000: 60.0, 10000: 170.0}
FAR = 10000
DISK = """\
apiVersion: reconciler/v1
kind: Disk
metadata: {name: NAME, labels: {tier: bench}}
spec: {size: 1MiB}
"""
KINDS = {
    "containers": (CONTAINER.replace("POWER", "stopped"), os.environ.get("BENCH_CONTAINERS", "")),
    "disks": (DISK, os.environ.get("BENCH_DISKS", "1000,10000")),
}


def main() -> int:
    for kind, (manifest, counts) in KINDS.items():
        if sizes := sorted(int(count) for count in counts.split(",") if count):
            with world() as here:
                found = _grown(here, kind, manifest, sizes)
            for line in _told(kind, found):
                print(line)
    return 0


def _grown(here: World, kind: str, manifest: str, sizes: list[int]) -> dict[int, float]:
    """MiB by how many there are; the folder grows from one to the next."""
    folder, found, made = here.folder / kind, dict[int, float](), 0
    folder.mkdir(mode=0o700)
    if kind == "containers":
        (folder / "image.yaml").write_text(IMAGE)
    for size in sizes:
        for number in range(made, size):
            text = manifest.replace("NAME", f"n{number}")
            (folder / f"{number:05}.yaml").write_text(text)
        made = size
        here.run("apply", "--yes", str(folder))
        found[size] = _resident(here, folder)
    here.clear()
    return found


def _resident(here: World, folder: Path) -> float:
    with watching(here, folder, "--resync", "10m") as watch:
        watch.until("InSync")
        time.sleep(5.0)
        if watch.steps():
            raise RuntimeError("there was something to do")
        return watch.memory()


def _told(kind: str, found: dict[int, float]) -> list[str]:
    lines = [f"B6   resident over {kind} that exist"]
    for count, memory in found.items():
        goal = f"  goal {GOAL[count]:.0f}" if count in GOAL else ""
        lines.append(f"  {count:6}  {memory:6.1f} MiB{goal}")
    *_, (fewer, less), (more, most) = [(0, 0.0), *found.items()]
    if FAR not in found and fewer >= 1000:  # few files are kept in another way
        beyond = most + (most - less) / (more - fewer) * (FAR - more)
        lines.append(f"  {FAR:6}  {beyond:6.1f} MiB by a straight line, not measured  goal {GOAL[FAR]:.0f}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
