"""OBSERVE: how many CPUs and how much memory a machine has, and between which limits that can change while it runs."""

from __future__ import annotations

from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.records import Record
from reconciler.backends.qemu.sizing import Processors, has_room, memory_from, online, processors_from
from reconciler.model import Condition
from reconciler.problems import BackendError

ONLINE = "/sys/devices/system/cpu/online"
"""Where Linux names the CPUs that it uses: one that was plugged in is not, before somebody brings it online."""


def questions(_record: Record) -> dict[str, Command]:
    """Nothing that needs the guest."""
    return {
        "cpu-slots": ("query-hotpluggable-cpus", {}),
        "memory": ("query-memory-size-summary", {}),
        "memory-devices": ("query-memory-devices", {}),
        "balloon": ("query-balloon", {}),
    }


def files(record: Record) -> list[str]:
    """Only of a guest that CPUs may have been plugged into."""
    return [ONLINE] if has_room(record.applied or {}) else []


def read(view: View) -> Reading:
    """Numbers as QEMU has them; CPUs that were plugged in count when the guest uses them."""
    answers, spec = view.answers, view.spec
    processors = processors_from(answers["cpu-slots"], answers["kvm"]["enabled"])
    balloon = answers["balloon"]
    given = None if isinstance(balloon, BackendError) else balloon["actual"]
    memory = memory_from(answers["memory"], answers["memory-devices"], given)
    used = _online(view, processors)
    fields = {
        "cpus": processors.in_words_of(spec.get("cpus", {}), used),
        "memory": memory.in_words_of(spec.get("memory", {})),
    }
    rules = {"cpus.count": processors.rule(), "memory.size": memory.rule()}
    return Reading(fields, rules, _conditions(view, processors, used))


def _online(view: View, processors: Processors) -> int | None:
    """How many the guest uses, by its own word. What it does with those that it was born with is its own business."""
    said = (view.word or {}).get(ONLINE)
    return online(said.decode("ascii", "replace")) if said and processors.plugged else None


def _conditions(view: View, processors: Processors, used: int | None) -> tuple[Condition, ...]:
    names = ", ".join(str(slot.id) for slot in processors.plugged)
    if not names:
        return ()
    if "agent" not in view.devices:
        hint = (
            f"{names}: plugged in; the guest has to bring it online by itself, and has no agent to tell whether it did"
        )
        return (Condition("ProcessorsOnline", None, "NoAgent", hint),)
    if used is None:
        return (Condition("ProcessorsOnline", None, "NotTold", "the guest did not tell which CPUs it uses"),)
    if used < processors.count:
        what = f"the guest uses {used} of {processors.count} CPUs"
        return (Condition("ProcessorsOnline", False, "Offline", what),)
    return (Condition("ProcessorsOnline", True, "Online", f"{names}: in use"),)
