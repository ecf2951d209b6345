"""OBSERVE: what every aspect is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.records import Record
from reconciler.effects import Rule
from reconciler.model import Condition, Json

Command = tuple[str, Mapping[str, Json]]
"""A QMP command: its name and its arguments."""


@dataclass(frozen=True)
class View:
    """One machine that answered.

    spec:    as declared when it was last applied: what no QEMU can tell is taken from there
    answers: key → what the monitor said, a BackendError where it refused
    word:    file in the guest → its contents, by the guest agent's word; None when no agent answered or none was asked
    """

    folder: Folder
    record: Record
    spec: Mapping[str, Any]
    answers: Mapping[str, Any]
    word: Mapping[str, bytes] | None = None

    @cached_property
    def devices(self) -> Mapping[str, str]:
        """Id in QEMU's device tree → driver."""
        listed = self.answers["peripheral"]
        return {one["name"]: one["type"].removeprefix("child<").removesuffix(">") for one in listed}

    def declared(self, section: str) -> Mapping[str, Any]:
        """One of the spec's mappings by name; empty when it is not there."""
        part: Mapping[str, Any] = self.spec.get(section, {})
        return part


@dataclass(frozen=True, slots=True)
class Reading:
    """spec: field → value, None for "not there"; rules, room: as in Observed; conditions: of this machine."""

    spec: Mapping[str, Any]
    rules: Mapping[str, Rule] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    room: int | None = None
