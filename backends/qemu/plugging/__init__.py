"""APPLY: what is plugged into a machine, at its birth and while it runs: one way for both.

Nothing here follows a list of changes. What is wanted is compared with what QEMU has (``Record.plugged`` says with
what it was plugged in); whatever is not wanted, or wanted otherwise, goes out; whatever is missing goes in. So coming
again after a crash, or after somebody's hands were in between, is the same work.

Each kind of thing is a module with the same five names:

    SECTION             the part of the spec that declares it: a mapping by name
    PREFIX              its ids in QEMU's device tree begin with it
    part_of(…)          what of its declaration it is plugged in with: another part means out and in again
    plug(live, name, part)      unplug(live, name, part)
    is_whole(live, name)        whether what stands behind it on the host's side is well
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NamedTuple

from reconciler.backends.qemu.plugging import agent, devices, disks, forwards, nics, shares
from reconciler.backends.qemu.plugging.live import Live
from reconciler.model import Json, Spec

__all__ = ["Live", "assemble", "note_missing", "plug", "unplug_unwanted"]

KINDS: Sequence[ModuleType] = (disks, nics, devices, shares)
"""In the order in which they are plugged in."""


class Missing(NamedTuple):
    """One thing to be plugged in: of which kind, called what, with what."""

    kind: ModuleType
    name: str
    part: Json


def assemble(live: Live) -> None:
    """A machine that has not run yet gets everything it is to be born with."""
    plug_missing(live)
    agent.plug(live)


def unplug_unwanted(live: Live, kept: frozenset[str] = frozenset()) -> None:
    """Take out what is not wanted, or wanted otherwise. Raises Refused when the guest does not let go of it in time.

    kept: names of own disks whose file may be used on; one that is not among them is to be made anew.
    """
    present = live.present()
    for kind, name, id in _plugged(live):
        stays = id in present and _is_as_wanted(live, kind, name) and (name in kept or not _is_own(live, kind, name))
        if not stays and not _is_ignored(live.spec, kind.SECTION, name):
            live.save()
            kind.unplug(live, name, live.record.plugged[id])
            live.forget(id)


def plug_missing(live: Live) -> None:
    """Put in what is wanted and not there; then what goes through what is plugged in."""
    plug(live, note_missing(live))


def note_missing(live: Live) -> list[Missing]:
    """What is wanted and not there. The record says so, in one write, before anything of it is plugged in."""
    present = live.present()
    found = [
        Missing(kind, name, part)
        for kind in KINDS
        for name, part in _wanted(live, kind).items()
        if f"{kind.PREFIX}{name}" not in present and not (live.booted and _is_ignored(live.spec, kind.SECTION, name))
    ]
    if found:
        live.remember({f"{one.kind.PREFIX}{one.name}": one.part for one in found})
    return found


def plug(live: Live, missing: Sequence[Missing]) -> None:
    """Put it in; then what goes through what is plugged in. A guest has its hands full with what is new, and QEMU
    answers late meanwhile: what can be asked before is."""
    if live.booted:
        disks.order(live)
    for one in missing:
        one.kind.plug(live, one.name, one.part)
    if live.booted:
        disks.grow(live)
    forwards.converge(live)


def _wanted(live: Live, kind: ModuleType) -> dict[str, Json]:
    return {name: kind.part_of(live, name, one) for name, one in kind.declared(live).items()}


def _plugged(live: Live) -> Iterator[tuple[ModuleType, str, str]]:
    """What is there according to the record, last plugged first."""
    for kind in reversed(KINDS):
        for id in list(live.record.plugged):
            if id.startswith(kind.PREFIX):
                yield kind, id.removeprefix(kind.PREFIX), id


def _is_as_wanted(live: Live, kind: ModuleType, name: str) -> bool:
    same = live.record.plugged[f"{kind.PREFIX}{name}"] == _wanted(live, kind).get(name)
    return same and bool(kind.is_whole(live, name))


def _is_own(live: Live, kind: ModuleType, name: str) -> bool:
    return kind is disks and disks.is_own(live.spec, name)


def _is_ignored(spec: Spec, section: str, name: str) -> bool:
    """Whether the manifest leaves it to somebody else."""
    paths = {str(path) for path in spec.get("ignore", ())}
    return section in paths or f"{section}.{name}" in paths
