"""``lifetime: session``, the end: the owner is gone, its guests are stopped, and their data stays.

Run by the keeper, for nobody at a terminal. What a guest is bound to stands on the guest itself: one that has been
declared otherwise since, or is not ours any more, goes on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from reconciler.cli.lookup import Seen, look
from reconciler.cli.owners import SESSION, Bound, bound_to, environments
from reconciler.model import Observed, Power, World, lxd_backend
from reconciler.paths import state_dir
from reconciler.ports import Guests
from reconciler.problems import BackendError, ReconcilerError
from reconciler.record import locked

_PATIENCE = 900.0
"""Seconds that an apply which is at work may take to come to its end."""
_STOP = 90.0
_PAUSES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds before each try: an LXD that is started again just now takes its time."""


def main(words: list[str]) -> int:
    """The folder of the owner; it is gone afterwards, unless a guest did not stop."""
    folder = Path(words[0])
    left = sum(_with_tries(folder, environment) for environment in environments(folder))
    if not left:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if left else 0


def _with_tries(folder: Path, environment: str) -> int:
    """How many guests run still, or may, after a few tries."""
    left = 1
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            left = _end(folder, environment)
        except ReconcilerError as error:
            _say("\n".join(map(str, error.problems)))
        if not left:
            break
    return left


def _end(folder: Path, environment: str) -> int:
    arguments = argparse.Namespace(manifests=[], environment=environment)
    with locked(state_dir(), environment, _PATIENCE):
        bound = bound_to(folder, environment)  # only now: an apply may have given them away
        with look(arguments) as seen:
            running = [one for one in seen.world if _is_meant(one, environment, bound)]
            # What is inside goes first: it is asked by itself, and the VM then has nothing to wait for.
            inner = [one for one in running if one.id.kind == "Container"]
            outer = [one for one in running if one.id.kind != "Container"]
            left = _stop(seen, inner) + _stop(seen, outer)
            hidden = unknown(seen.world, bound, {one.id.name for one in outer})
        for one in hidden:
            _say(f"{one.id}: nobody can tell whether it runs")
        return left + len(hidden)


def unknown(world: World, bound: Iterable[Bound], stopped: Collection[str]) -> list[Bound]:
    """Those whose backend keeps silent, which is not the same as that they have ended.

    stopped: VMs that were told to; what is in them ends with them
    """
    found = []
    for one in bound:
        home = one.backend if one.machine is None else lxd_backend(one.machine)
        snapshot = world.snapshots.get(home)  # none: of a VM that does not run
        hides = snapshot is not None and snapshot.problem is not None and one.id not in snapshot.resources
        if hides and one.machine not in stopped:
            found.append(one)
    return found


def _is_meant(one: Observed, environment: str, bound: list[Bound]) -> bool:
    if not one.owned or one.environment != environment or one.power in (None, Power.STOPPED):
        return False
    inside = {id.name for id in one.needs if id.kind == "VirtualMachine"}
    named = any(one.id == it.id and (one.backend == it.backend or it.machine in inside) for it in bound)
    return named and (one.applied or {}).get("lifetime") == SESSION


def _stop(seen: Seen, guests: list[Observed]) -> int:
    """How many did not."""
    if not guests:
        return 0
    with ThreadPoolExecutor(max_workers=8) as pool:
        return sum(pool.map(lambda one: _stop_one(seen.backends, one), guests))


def _stop_one(backends: Mapping[str, object], one: Observed) -> int:
    try:
        cast(Guests, backends[one.backend]).power(one.id, "stop", False, _STOP, lambda _message: None)
    except BackendError as error:
        _say(str(error.problem))
        return 1
    _say(f"{one.id}: stopped, its session has ended")
    return 0


def _say(words: str) -> None:
    sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
