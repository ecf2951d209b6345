"""B11: pushed → applied, as LXD tells: asked for every second, and at once by ``reconcile --now`` as a push hook does.

From the end of the push, signatures verified. Beside it what it is made of: server asked, commit verified, a PATCH.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from bench.measure import Figures, absolute, alternate, process, table
from bench.watching import Lifecycle, Watch, watching
from bench.world import IMAGE, World, world
from tests.support.repository import ALONE, Origin, git, ssh_key

ROUNDS = 15
POLLED, ASKED = 1.0, 0.15
NAME, UPDATED = "pushed", "instance-updated"


def main() -> int:
    with world() as here:
        origin = _origin(here.folder)
        signers = origin.folder / "allowed"
        url = f"file://{origin.folder}/fleet.git"  # what a network or ssh takes is not ours: nothing of it is measured
        words = ["--git", url, "--path", "lab", "--allow-protocol", "file", "--signers", str(signers)]
        told = Lifecycle(here)
        try:
            with watching(here, None, *words, "--interval", "1s") as watch:
                watch.until("InSync")
                polled = alternate({"watch": lambda: _pushed(here, origin, watch, told, now=False)}, ROUNDS)["watch"]
            with watching(here, None, *words, "--interval", "1h") as watch:
                watch.until("InSync")
                figures = alternate(
                    {
                        "reconcile --now": lambda: _pushed(here, origin, watch, told, now=True),
                        "reconciler version": process(here.reconciler("version"), here.environment),
                        "git ls-remote": process(["git", "ls-remote", url, "main"], ALONE),
                        "git verify-commit": lambda: _verify(origin, signers),
                        "one PATCH": lambda: _patch(here),
                    },
                    ROUNDS,
                )
        finally:
            origin.end()
        here.clear()
    print(table("B11  push → applied", "reconcile --now", figures))
    print(_judged(polled, figures["reconcile --now"]))
    return 0


def _judged(polled: Figures, asked: Figures) -> str:
    return absolute("B11  push → applied", {"asked every second": (polled, POLLED), "reconcile --now": (asked, ASKED)})


def _origin(folder: Path) -> Origin:
    """A repository with one container in it, all of it signed."""
    place = folder / "origin"
    place.mkdir()
    origin = Origin.make(place)
    key = ssh_key(place, "listed")
    kind, public, *_ = key.with_suffix(".pub").read_text().split()
    (place / "allowed").write_text(f"a@x {kind} {public}\n")
    origin.sign_with(key)
    origin.commit(_files(64))
    return origin


def _files(memory: int) -> dict[str, str | None]:
    spec = {"image": "busybox", "memory": f"{memory}MiB"}
    document = {"apiVersion": "reconciler/v1", "kind": "Container", "metadata": {"name": NAME}, "spec": spec}
    return {"lab/image.yaml": IMAGE, "lab/web.yaml": json.dumps(document)}


def _pushed(here: World, origin: Origin, watch: Watch, told: Lifecycle, now: bool) -> float:
    origin.commit(_files(random.randrange(40, 4000)), push=False)
    time.sleep(0.3 + (0 if now else random.random()))
    told.skip()
    origin.push()
    began = time.perf_counter()
    if now:
        here.run("reconcile", "--now")
    ended = told.until(NAME, UPDATED)
    watch.until("InSync")
    return ended - began


def _verify(origin: Origin, signers: Path) -> float:
    began = time.perf_counter()
    git(origin.folder / "work", "-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", "HEAD")
    return time.perf_counter() - began


def _patch(here: World) -> float:
    """What has to be done in the end, by itself."""
    began = time.perf_counter()
    here.call("PATCH", f"/1.0/instances/{NAME}", {"config": {"user.bench": str(began)}})
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
