"""B21: two VMs with two containers in each, from nothing to converged in one apply, against one such VM by itself.

The image of the VMs is at hand; everything else is made: disks, boot, LXD in the guest, trust, images and containers
inside. Both contestants are our own, in turn: what is measured is whether towers come up beside each other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Contestant, alternate, table
from bench.world import IMAGE, World, world

ROUNDS = 3
GOAL = 1.6
HOST = """\
apiVersion: reconciler/v1
kind: Image
metadata: {name: lxd-host}
spec: {type: virtual-machine, source: {build: {recipe: lxd-host}}}
"""
TOWER = """\
---
apiVersion: reconciler/v1
kind: VirtualMachine
metadata: {name: NAME}
spec:
  lxd: true
  boot: {image: lxd-host}
  memory: 768MiB
  disks: [{name: data, size: 4GiB}]
  nics: [{name: net, type: user}]
---
apiVersion: reconciler/v1
kind: Container
metadata: {name: NAME-a}
spec: {host: NAME, image: busybox}
---
apiVersion: reconciler/v1
kind: Container
metadata: {name: NAME-b}
spec: {host: NAME, image: busybox}
"""


def main() -> int:
    with world() as here:
        here.run("apply", "--yes", _folder(here, ()))
        figures = alternate(
            {"two towers": _coming_up(here, ("one", "two")), "one tower": _coming_up(here, ("one",))}, ROUNDS
        )
        print(table("B21 towers of two containers, from nothing", "two towers", figures, ("one tower", GOAL)))
    return 0


def _folder(here: World, towers: Sequence[str]) -> str:
    """The manifests of so many towers."""
    folder: Path = here.folder / f"towers-{len(towers)}"
    folder.mkdir(mode=0o700)
    text = "---\n".join((HOST, IMAGE)) + "".join(TOWER.replace("NAME", name) for name in towers)
    (folder / "towers.yaml").write_text(text)
    return str(folder)


def _coming_up(here: World, towers: Sequence[str]) -> Contestant:
    folder = _folder(here, towers)
    machines = [f"VirtualMachine/{name}" for name in towers]

    def run() -> float:
        began = time.perf_counter()
        here.run("apply", "--yes", "--timeout", "600s", folder)
        seconds = time.perf_counter() - began
        here.run("delete", "--yes", "--confirm-delete", *machines)
        return seconds

    return run
