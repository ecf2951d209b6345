"""OBSERVE: the shares that are plugged in, served, and mounted in the guest as far as it says so."""

from __future__ import annotations

from typing import Any

from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.inside.mounts import TABLE, parse
from reconciler.backends.qemu.inside.shares import by_hand, is_in_place
from reconciler.backends.qemu.plugging.shares import NINEP, PREFIX, SECTION
from reconciler.backends.qemu.records import Record
from reconciler.backends.qemu.shares import cold, daemon, program
from reconciler.effects import Rule
from reconciler.model import Condition, Effect, Spec

CONDITION = "Mounted"
_DRIVERS = {"virtiofs": "vhost-user-fs-pci", "9p": "virtio-9p-pci"}
_COLD = "9p is plugged in before the guest boots"


def questions(_record: Record) -> dict[str, Command]:
    """The list of devices says enough."""
    return {}


def files(record: Record) -> list[str]:
    """What the guest has mounted, where it is to mount something."""
    return [TABLE] if (record.applied or {}).get(SECTION) else []


def read(view: View) -> Reading:
    """The declared ones that are there.

    One that is not whole has lost what has to be done anew: all of it without its daemon, its path when it is not
    mounted. Whether a guest has mounted it that does not answer is left open.
    """
    table = parse(view.word[TABLE]) if view.word is not None and TABLE in view.word else None
    found: dict[str, Any] = {}
    open_questions: list[str] = []
    for name, share in view.declared(SECTION).items():
        part = view.record.plugged.get(f"{PREFIX}{name}")
        if part is None or view.devices.get(f"{PREFIX}{name}") != _DRIVERS[part["transport"]]:
            continue
        found[name] = {field: part[field] for field in share if field in part}
        if not _is_served(view, name, part):
            found[name] = {}
        elif table is None:
            open_questions.append(by_hand(name, part))
        elif not is_in_place(table, name, part):
            del found[name]["path"]
    conditions = (_unasked(view, open_questions),) if open_questions else ()
    return Reading({SECTION: found or None}, rules_of(view), conditions)


def rules_of(view: View) -> dict[str, Rule]:
    """Where a share of this very machine costs a restart."""
    if cold.is_needed():
        return {f"{SECTION}.**": Rule(Effect.RESTART, f"{program.lacking()}: {_COLD}")}
    born_with = [id.removeprefix(PREFIX) for id, part in view.record.plugged.items() if _is_cold(id, part)]
    return {pattern: Rule(Effect.RESTART, _COLD) for name in born_with for pattern in _patterns(name)}


def _patterns(name: str) -> tuple[str, str]:
    return f"{SECTION}.{name}", f"{SECTION}.{name}.**"


def _is_cold(id: str, part: Spec) -> bool:
    return id.startswith(PREFIX) and part["transport"] == NINEP


def _is_served(view: View, name: str, part: Spec) -> bool:
    return part["transport"] == NINEP or daemon.is_whole(daemon.Place(view.folder, name), part)


def _unasked(view: View, commands: list[str]) -> Condition:
    if not view.spec.get("guestAgent", True):
        return Condition(CONDITION, None, "NoAgent", "in the guest: " + "; ".join(commands))
    return Condition(CONDITION, None, "AgentSilent", "not known; in the guest: " + "; ".join(commands))
