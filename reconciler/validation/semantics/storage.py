"""VALIDATE: disks, volumes and shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.validation.findings import Notes
from reconciler.validation.semantics.paths import guest_path
from reconciler.validation.semantics.raw import config, overlaps

Spec = Mapping[str, Any]


def disk(notes: Notes, spec: Spec) -> None:
    """A Disk."""
    if "mount" in spec:
        _mount_point(notes, ("spec", "mount"), spec["mount"])


def volume(notes: Notes, spec: Spec) -> None:
    """A Volume."""
    if "config" in spec:
        config(notes, ("spec", "config"), spec["config"])
        overlaps(notes, spec, {"size": "size"})
    _targets(notes, ("spec", "attachTo"), spec.get("attachTo", ()))


def share(notes: Notes, spec: Spec) -> None:
    """A Share."""
    _targets(notes, ("spec", "mounts"), spec.get("mounts", ()))


def _targets(notes: Notes, path: Sequence[str | int], entries: Sequence[Mapping[str, str]]) -> None:
    """Each guest once: what we attach is called after the resource."""
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        _mount_point(notes, (*path, index, "path"), entry["path"])
        if entry["target"] in seen:
            notes.note((*path, index, "target"), f"{entry['target']} has it already", "one entry for each guest")
        seen.add(entry["target"])


def _mount_point(notes: Notes, path: Sequence[str | int], value: str) -> None:
    if not value.strip("/"):
        notes.note(path, 'expected a folder below "/", got "/"', "the guest's root is its own")
    else:
        guest_path(notes, path, value)
