"""VALIDATE: raw LXD configuration and devices: what is LXD's or our own business is not a manifest's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.validation.findings import Notes
from reconciler.validation.semantics.paths import guest_path

_OURS = ("share-", "device-", "port-", "volume-", "disk-")
_NOT_YOURS = {
    "volatile.": "is LXD's own memory of the instance",
    "user.reconciler.": "is how we know what is ours",
}
_WITH_PATH = frozenset(("disk", "unix-char", "unix-block"))


def config(notes: Notes, path: Sequence[str | int], given: Mapping[str, Any]) -> None:
    """Keys that nobody sets by hand."""
    for key in given:
        why = next((why for prefix, why in _NOT_YOURS.items() if key.startswith(prefix)), None)
        if why is not None:
            notes.note((*path, key), why, "take it out", at_name=True)


def overlaps(notes: Notes, spec: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """A key beside the field that sets it: which one would win?"""
    for key, field in fields.items():
        here: Any = spec
        for part in field.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        if key in spec["config"] and here is not None:
            notes.note(("spec", "config", key), f"says the same as {field}", "keep one of the two", at_name=True)


def devices(notes: Notes, path: Sequence[str | int], given: Mapping[str, Mapping[str, Any]]) -> None:
    """Names that are ours, options that cannot work, two roots."""
    roots = []
    for name, device in given.items():
        here, kind = (*path, name), device["type"]
        if name.startswith(_OURS):
            hint = f"names that begin with {', '.join(_OURS)} are those of devices that we make"
            notes.note(here, "this name is not free", hint, at_name=True)
        if kind in _WITH_PATH and isinstance(device.get("path"), str):
            guest_path(notes, (*here, "path"), device["path"])
        if kind.startswith("unix-") and not str(device.get("source", "/")).startswith("/"):
            notes.note((*here, "source"), f'expected an absolute path, got "{device["source"]}"')
        if kind == "disk" and device.get("path") == "/":
            roots.append(name)
        if kind == "disk" and "path" not in device and "source" not in device:
            notes.note(here, "a disk needs path (where the guest sees it)", at_name=True)
    for name in roots[1:]:
        notes.note((*path, name, "path"), f'"/" is already that of {roots[0]}', "a container has one root disk")
