"""OBSERVE: which disks the guest has mounted where they are wanted, by its own word; part of the disks' aspect.

A guest that does not answer is believed to have mounted what it was told to: a condition says that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.backends.qemu.aspects.view import View
from reconciler.backends.qemu.inside import growing
from reconciler.backends.qemu.inside.disks import PREFIX, wanted
from reconciler.backends.qemu.inside.mounts import TABLE, is_mounted, parse
from reconciler.backends.qemu.records import Record
from reconciler.model import Condition


def files(record: Record) -> list[str]:
    """The kernel's table of mounts; and where a file system stayed smaller than its disk, how big it is by now."""
    paths = wanted(record.applied or {})
    ours = [record.mounted.get(f"{PREFIX}{name}", {}) for name in paths]
    return [TABLE, *(one["source"] for one in ours if "smaller" in one)] if paths else []


def mounted(view: View, disks: Mapping[str, Any]) -> dict[str, Any]:
    """These disks, without ``mount`` where the guest says that it is not so."""
    table = _table(view)
    if table is None:
        return dict(disks)
    missing = set()
    for name, path in wanted(view.spec).items():
        entry = view.record.mounted.get(f"{PREFIX}{name}", {})
        if entry.get("path") != path or "at" not in entry or not is_mounted(table, entry["at"], entry["source"]):
            missing.add(name)
    return {name: _without_mount(disk) if name in missing else disk for name, disk in disks.items()}


def conditions(view: View, disks: Mapping[str, Any]) -> tuple[Condition, ...]:
    """What is left to the guest, not known, or not as big as it could be. disks: as observed."""
    declared = {name: disk["mount"] for name, disk in view.declared("disks").items() if "mount" in disk}
    if not declared:
        return ()
    said = ", ".join(f"{name} at {path}" for name, path in declared.items())
    if "agent" not in view.devices:
        return (Condition("Mounted", None, "NoAgent", f"left to the guest, which has no agent: {said}"),)
    if _table(view) is None:
        return (Condition("Mounted", None, "AgentSilent", f"whether the guest has mounted them is not known: {said}"),)
    missing = [f"{name} at {path}" for name, path in declared.items() if "mount" not in disks.get(name, {})]
    smaller = _smaller(view)
    if missing:
        return (Condition("Mounted", False, "NotMounted", f"not mounted: {', '.join(missing)}"), *smaller)
    return (Condition("Mounted", True, "Mounted", said), *smaller)


def _smaller(view: View) -> tuple[Condition, ...]:
    """File systems that did not follow their disks; one that somebody has grown by hand since is as big as it says."""
    found = []
    for name in wanted(view.spec):
        entry = view.record.mounted.get(f"{PREFIX}{name}", {})
        if "smaller" in entry and not _fills(entry, (view.word or {}).get(entry["source"], b"")):
            found.append(f"{name}: {entry['smaller']}")
    hint = "grow it in the guest, or mend that and restart the guest"
    return (Condition("FileSystemSmaller", True, "NotGrown", f"{'; '.join(found)}; {hint}"),) if found else ()


def _fills(entry: Mapping[str, Any], head: bytes) -> bool:
    size = growing.size_of(head)
    return size is not None and size > entry["size"] - entry.get("start", 0) - growing.SLACK


def _table(view: View) -> Any:
    return parse(view.word[TABLE]) if view.word is not None and TABLE in view.word else None


def _without_mount(disk: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in disk.items() if field != "mount"}
