"""B2: forty running containers from nothing, whole process, against bare loops of the same calls."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import Contestant, alternate, process, table
from bench.peers import salt
from bench.world import World, world

COUNT = 40
ROUNDS = 3
GOAL = 1.1
FEW = 5
ANSIBLE = Path(".bench/venv/bin/ansible-playbook")


def main() -> int:
    with world() as here:
        warm = here.manifests(1, "stopped", "warm")
        here.run("apply", "--yes", str(warm))  # builds and uploads the image: the same for everybody
        figures = alternate(_contestants(here), rounds=ROUNDS, warmup=1)
    peers = [figure for name, figure in figures.items() if name != "reconciler apply"]
    best = min(peers, key=lambda figure: figure.p50)
    print(table(f"B2  {COUNT} running containers from nothing", "reconciler apply", figures, (best.name, GOAL)))
    return 0


def _contestants(here: World) -> dict[str, Contestant]:
    manifests = here.manifests(COUNT, "running")
    ours = process(here.reconciler("apply", "--yes", str(manifests)), here.environment)
    script = Path(__file__).parent / "peers" / "bare_pool.py"
    fingerprint = here.fingerprint()
    bare = process([sys.executable, str(script), str(here.socket), fingerprint, str(COUNT), "--start"])
    contestants = {"reconciler apply": _cleared(here, ours), "bare thread pool": _cleared(here, bare)}
    if benchmark := shutil.which("lxd-benchmark") or shutil.which("lxd.benchmark"):
        command = [benchmark, "launch", f"--count={COUNT}", "--parallel=8", "busybox"]
        theirs = process(command, {"LXD_DIR": str(here.socket.parent)})
        contestants["lxd-benchmark launch"] = _cleared(here, theirs)
    if ANSIBLE.exists():
        play = process([str(ANSIBLE), str(_playbook(here))])
        contestants[f"Ansible ({FEW} measured)"] = _cleared(here, lambda: play() * COUNT / FEW)
    if salt.is_here():
        contestants["Salt lxd_container"] = _cleared(here, salt.present(here, "s-", COUNT, running=True, test=False))
    return contestants


def _playbook(here: World) -> Path:
    """One task a container, for a few of them: Ansible makes one after the other, so the rest takes as long again."""
    tasks = "".join(
        f"    - community.general.lxd_container: {{name: a-{number}, state: started, url: 'unix:{here.socket}', "
        "source: {type: image, alias: busybox}, config: {limits.memory: 64MiB}, ignore_volatile_options: true}\n"
        for number in range(FEW)
    )
    playbook = here.folder / "create.yaml"
    playbook.write_text(f"- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n{tasks}")
    return playbook


def _cleared(here: World, contestant: Callable[[], float]) -> Contestant:
    def run() -> float:
        here.clear()
        time.sleep(0.5)  # let LXD's own clean-up end, for whoever is next
        return contestant()

    return run


if __name__ == "__main__":
    sys.exit(main())
