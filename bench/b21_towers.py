"""B21: two VMs with two containers in each, from nothing to converged in one apply, against one such VM by itself.

The image of the VMs is at hand; everything else is made: disks, boot, LXD in the guest, trust, images and containers
inside. Both contestants are our own, in turn: what is measured is whether towers come up beside each other.
And by itself the boot of such a VM that has been up before, until the LXD in it answers us.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Contestant, absolute, alternate, table
from bench.world import IMAGE, World, world

ROUNDS = 3
GOAL, BOOT = 1.6, 30.0
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
        booted = alternate({"boot": _booting(here)}, ROUNDS)["boot"]
        print(absolute("B21 the VM alone, from stopped", {"until its LXD answers": (booted, BOOT)}))
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


def _booting(here: World) -> Contestant:
    folder: Path = here.folder / "alone"
    folder.mkdir(mode=0o700)
    machine = TOWER.replace("NAME", "alone").removeprefix("---\n").partition("---\n")[0]
    (folder / "alone.yaml").write_text(f"{HOST}---\n{machine}")
    here.run("apply", "--yes", "--timeout", "600s", str(folder))

    def run() -> float:
        here.run("stop", "alone")
        began = time.perf_counter()
        here.run("apply", "--yes", "--timeout", "600s", str(folder))
        return time.perf_counter() - began

    return run
