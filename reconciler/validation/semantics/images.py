"""VALIDATE: an image's source against what it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.validation.findings import Notes, listed
from reconciler.validation.semantics.paths import guest_path

Spec = Mapping[str, Any]

_MACHINE = "virtual-machine"
_SECOND_FILE = frozenset(("rootfs", "rootfsUrl"))
_USES = {
    "busybox": frozenset(("recipe", "files", "kernel", "modules")),
    "debian": frozenset(("recipe", "suite", "packages", "files", "commands")),
    "lxd-host": frozenset(("recipe", "suite", "packages", "files", "commands")),
}


def image(notes: Notes, spec: Spec) -> None:
    """An Image."""
    if "source" in spec and "type" in spec:
        source(notes, ("spec", "source"), spec["source"], spec["type"])


def source(notes: Notes, path: Sequence[str | int], given: Spec, type_: str) -> None:
    """A source, of an Image or inline, for that type of guest."""
    if type_ == _MACHINE:
        _for_machine(notes, path, given)
    elif "format" in given:
        notes.note((*path, "format"), "only disk images have a format", "take it out", at_name=True)
    if "build" in given:
        _build(notes, (*path, "build"), given["build"], type_)


def _for_machine(notes: Notes, path: Sequence[str | int], given: Spec) -> None:
    if "server" in given:
        notes.note((*path, "server"), "image servers give images for containers", "use file or url", at_name=True)
    for name in sorted(_SECOND_FILE & given.keys()):
        notes.note((*path, name), "only images for containers come in two files", "take it out", at_name=True)


def _build(notes: Notes, path: Sequence[str | int], build: Spec, type_: str) -> None:
    recipe = build["recipe"]
    if recipe == "lxd-host" and type_ != _MACHINE:
        notes.note((*path, "recipe"), "lxd-host makes images for virtual machines", "type: virtual-machine")
    for name in build:
        if name not in _USES[recipe]:
            hint = f"it takes {listed(sorted(_USES[recipe] - {'recipe'}))}"
            notes.note((*path, name), f"recipe {recipe} has no use for it", hint, at_name=True)
        elif name in ("kernel", "modules") and type_ != _MACHINE:
            notes.note((*path, name), "a container has no kernel of its own", "take it out", at_name=True)
    for index, file in enumerate(build.get("files", ())):
        guest_path(notes, (*path, "files", index, "path"), file["path"], file=True)
