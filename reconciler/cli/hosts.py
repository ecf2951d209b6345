"""``reconciler hosts``: names of guests for programs on this host, printed, or kept where programs find them.

apply, delete and watch do the same with ``keep`` where the environment asks for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from reconciler.blocks import with_block
from reconciler.cli import DONE, PROBLEM
from reconciler.cli.lookup import Seen, look
from reconciler.cli.screen import show_problems, tell
from reconciler.cli.session import ANY_ENVIRONMENT, opened, settings
from reconciler.model import LOCAL_HOST, QEMU, Desired, Power, ResourceId, World, lxd_backend
from reconciler.names.block import alone
from reconciler.names.lines import BLOCK, Direct, Names, names
from reconciler.names.places import Place, Usual, named
from reconciler.observation import observe
from reconciler.paths import state_dir
from reconciler.ports import Guests
from reconciler.problems import Problem, ReconcilerError, UsageError
from reconciler.view.text import clean, line


def run(arguments: argparse.Namespace) -> int:
    """Print the block, keep the names, or take them away. What a silent backend would know stays as it is there."""
    if arguments.to is not None and arguments.write != "":
        raise UsageError(Problem("--to says where --write keeps them", hint="--write without a path, and --to"))
    if arguments.remove is not None:
        return _remove(arguments.remove)
    with look(arguments) as seen:
        found = _found(seen)
    show_problems([*found.problems, *seen.problems])
    if arguments.write is None:
        sys.stdout.write(with_block(b"", BLOCK, found.lines).decode())
    else:
        place = _chosen(arguments.write, arguments.to, attended=True)
        _write(place, found, not seen.problems, usual=arguments.write == "")
        show_problems(place.problems())
    return PROBLEM if seen.problems else DONE


@dataclass(frozen=True, slots=True)
class NamesKept:
    """What became of keeping the names. place: where they are kept; changed: whether anything had to be written;
    problems: why not, or why nobody is answered."""

    place: str
    changed: bool
    problems: tuple[Problem, ...] = ()


def keep(desired: Iterable[Desired], path: str = "") -> NamesKept:
    """Look at everything that is there, and bring the names up to date, unattended. Raises nothing that we name.

    desired: where else to look than on this host; path: a file, or a folder of dnsmasq's; empty: the usual place.
    """
    place: Place | None = None
    wanted = list(desired)
    try:
        place = _chosen(path, None, attended=False)
        with opened(wanted, settings(ANY_ENVIRONMENT), everything=True) as backends:
            seen = Seen(backends, observe(backends))
            found = _found(seen)
        changed = _write(place, found, is_whole(seen.world, wanted), usual=not path)
        return NamesKept(str(place.path), changed, tuple(place.problems()))
    except ReconcilerError as error:
        return NamesKept(str(place.path) if place is not None else path, False, tuple(error.problems))


def is_whole(world: World, desired: Iterable[Desired]) -> bool:
    """Whether all that may have names could be looked at: an LXD in a VM that is down, or gone, hides nothing."""
    inside = {
        lxd_backend(want.id.name): want.spec["lxd"].get("virtualMachine") for want in desired if want.id.kind == "Host"
    }
    silent = [name for name in world.snapshots if world.problem(name) is not None]
    return all(_is_down(world, inside.get(name, _named_as(name))) for name in silent)


def _named_as(backend: str) -> str | None:
    """The VM that gives an LXD of this name, which no Host speaks of."""
    return None if backend in (QEMU, lxd_backend(LOCAL_HOST)) else backend.removeprefix(lxd_backend(""))


def _is_down(world: World, machine: str | None) -> bool:
    if machine is None or world.problem(QEMU) is not None:
        return False
    seen = world.find(QEMU, ResourceId("VirtualMachine", machine))
    return seen is None or seen.power is Power.STOPPED


def keep_up(desired: Mapping[ResourceId, Desired]) -> None:
    """At the end of a verb of an environment with ``names``: keep them, or warn. Guests are as declared without."""
    show_problems(list(keep(desired.values()).problems))


def _chosen(path: str, kind: str | None, attended: bool) -> Place:
    return named(Path(path)) if path else Usual().choose(kind, attended)


def _write(place: Place, found: Names, whole: bool, usual: bool) -> bool:
    with alone(state_dir()):
        return Usual().keep(place, found, whole) if usual else place.keep(found, whole)


def _remove(path: str) -> int:
    with alone(state_dir()):
        if not path:
            there = Usual().remove()
        else:
            place = named(Path(path))
            there = place.entry.remove() if place.entry is not None else place.keep(Names([], []), whole=True)
    tell([line("names: ", clean("taken away" if there else "there were none"))])
    return DONE


def _found(seen: Seen) -> Names:
    return names(seen.world, _direct(seen))


def _direct(seen: Seen) -> Direct:
    """Each guest's own addresses, as far as this host reaches them; nothing of backends that do not answer."""
    found: dict[tuple[str, ResourceId], Sequence[str] | None] = {}
    for name, backend in seen.backends.items():
        if seen.world.problem(name) is None:
            for id, addresses in cast(Guests, backend).addresses().items():
                found[name, id] = addresses
    return found
