"""B1: an in-sync plan over N created containers, whole process, against the bare limit.

L = one raw ``GET /1.0/instances?recursion=1`` (curl) + a bare Python that parses, validates and compares.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import Contestant, alternate, process, table
from bench.peers import salt
from bench.world import World, dump, world

SIZES = (10, 100, 1000)
ROUNDS = 7
GOAL = 1.25


def main() -> int:
    sizes = tuple(int(text) for text in os.environ.get("BENCH_SIZES", "").split()) or SIZES
    with world() as here:
        for size in sizes:
            manifests = here.manifests(size)
            here.run("apply", "--yes", "--parallel", "8", str(manifests))
            _measure(here, manifests, size)
    return 0


def _measure(here: World, manifests: Path, size: int) -> None:
    answer = here.folder / f"answer-{size}.json"
    dump(answer, {"metadata": here.call("GET", "/1.0/instances?recursion=1")})
    figures = alternate(
        {
            "reconciler plan": process(here.reconciler("plan", "--exit-code", str(manifests)), here.environment),
            "L: raw GET + bare Python": _both(_raw_get(here), _bare(manifests, answer)),
            **_peers(here, size),
        },
        rounds=ROUNDS,
    )
    goal = ("L: raw GET + bare Python", GOAL) if size >= 1000 else None
    print(table(f"B1  in-sync plan, {size} containers", "reconciler plan", figures, goal))


def _raw_get(here: World) -> Contestant:
    url = "http://lxd/1.0/instances?recursion=1"
    return process(["curl", "--silent", "--fail", "--output", "/dev/null", "--unix-socket", str(here.socket), url])


def _bare(manifests: Path, answer: Path) -> Contestant:
    script = Path(__file__).parent / "peers" / "bare_plan.py"
    return process([sys.executable, str(script), str(manifests), str(answer)])


def _both(first: Contestant, second: Contestant) -> Contestant:
    return lambda: first() + second()


def _peers(here: World, size: int) -> dict[str, Contestant]:
    """Both only telling: Salt of a hundred at most, Ansible of ten (some 0.3 s each), scaled to all of them."""
    ansible = Path(".bench/venv/bin/ansible-playbook")
    found: dict[str, Contestant] = {}
    if salt.is_here():
        several = min(size, 100)  # what it costs is its start; more of them would only be slower
        found[f"Salt ({several} of them)"] = salt.present(here, f"c{size}-", several, running=False, test=True)
    if not ansible.exists():
        return found
    count = min(size, 10)
    playbook = here.folder / f"playbook-{size}.yaml"
    tasks = "".join(
        f"    - community.general.lxd_container: {{name: c{size}-{number}, state: stopped, url: 'unix:{here.socket}', "
        "config: {limits.memory: 64MiB, user.purpose: bench}}\n"
        for number in range(count)
    )
    playbook.write_text(f"- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n{tasks}")

    def run() -> float:
        began = time.perf_counter()
        done = subprocess.run([str(ansible), "--check", str(playbook)], capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stdout.decode()[-2000:])
        return (time.perf_counter() - began) * size / count

    return found | {f"Ansible ({count} measured)": run}


if __name__ == "__main__":
    shutil.which("curl") or sys.exit("needs curl")
    sys.exit(main())
