"""OBSERVE and APPLY, pure: how much memory and how many CPUs a machine has, and may get, as QEMU counts them.

A machine is born with its base of memory. More comes in blocks on top of it (virtio-mem), and less is what the guest
keeps when it puts the rest into a balloon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.model import Effect, Rule, Spec

STEP = 8192
"""QEMU counts a machine's memory in steps of 8 KiB."""
BLOCK = 2 << 20
"""What virtio-mem gives and takes: the size of a huge page."""
_SMALLEST_SHARE = 4
"""A guest is not asked to give away more than three quarters of what it has booted with."""
_PLUGGED = "/machine/peripheral/"


def memory_size(declared: int) -> int:
    """What QEMU makes of a machine's memory."""
    return _up(declared, STEP)


def room_for(most: int, base: int) -> int:
    """How much memory can be plugged into a machine with that base that may have ``most``. Bytes, like all here."""
    return _up(max(0, memory_size(most) - base), BLOCK)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a machine has, in bytes.

    base: born with; room: what can be plugged in on top; plugged: what the guest took of that; kept: what it has of
    its base, the rest being in its balloon; requested: what it was last asked to take
    """

    base: int
    room: int = 0
    plugged: int = 0
    kept: int = 0
    requested: int = 0

    @property
    def size(self) -> int:
        """What the guest was given."""
        return self.kept + self.plugged

    @property
    def least(self) -> int:
        """The smallest size that the guest is asked to get by with while it runs."""
        return self.base // _SMALLEST_SHARE

    @property
    def most(self) -> int:
        """The biggest size that it can reach while it runs."""
        return self.base + self.room

    def fitting(self, declared: int) -> int:
        """The size that this machine has when it is told to have so much: base and balloon in steps, more in blocks."""
        size = memory_size(declared)
        return size if size <= self.base else self.base + _up(size - self.base, BLOCK)

    def in_words_of(self, declared: Mapping[str, int]) -> dict[str, int]:
        """As declared, when that is what a machine like this makes of it."""
        found = {**declared, "size": self.size}
        if "size" in declared and self.fitting(declared["size"]) == self.size:
            found["size"] = declared["size"]
        if "max" in declared and room_for(declared["max"], self.base) != self.room:
            del found["max"]
            if self.room:
                found["max"] = self.most
        return found

    def rule(self) -> Rule:
        """What another size does to this guest."""
        note = f"while it runs, it can have {self.least >> 20} MiB to {self.most >> 20} MiB"
        return Rule(Effect.LIVE, note, least=self.least, most=self.most, outside=Effect.RESTART)


def memory_from(summary: Mapping[str, int], devices: Sequence[Mapping[str, Any]], balloon: int | None) -> Memory:
    """From what QEMU answers to query-memory-size-summary and query-memory-devices; balloon: ``actual`` of
    query-balloon, None for a machine without one."""
    base = summary["base-memory"]
    plugs = [one["data"] for one in devices if one["type"] == "virtio-mem"]
    room, plugged, requested = (sum(one[key] for one in plugs) for key in ("max-size", "size", "requested-size"))
    return Memory(base, room, plugged, base if balloon is None else balloon, requested)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a CPU. id: of the device in it, None for a CPU that the machine was born with, or for none."""

    number: int
    driver: str
    properties: Mapping[str, int]
    taken: bool
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Processors:
    """The places for CPUs of one machine, in their order. emulated: by QEMU itself, without KVM."""

    slots: Sequence[Slot]
    emulated: bool

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(slot.taken for slot in self.slots)

    @property
    def plugged(self) -> list[Slot]:
        """Those that came while it ran, in their order."""
        return [slot for slot in self.slots if slot.id is not None]

    @property
    def free(self) -> list[Slot]:
        """Where one can be plugged in."""
        return [slot for slot in self.slots if not slot.taken]

    @property
    def least(self) -> int:
        """How many have to stay. QEMU's emulation leaves wild pointers where a CPU was, and dies of them soon after."""
        return self.count if self.emulated else self.count - len(self.plugged)

    def in_words_of(self, declared: Mapping[str, int], online: int | None) -> dict[str, int]:
        """As declared, with the number that it really has; those count that the guest uses (where that is known)."""
        found = {**declared, "count": self.count if online is None else min(self.count, online)}
        if "max" in declared:
            found["max"] = len(self.slots)
        return found

    def rule(self) -> Rule:
        """What another number does to this guest."""
        least, most = self.least, len(self.slots)
        note = (
            f"while it runs, it can have {most}" if least == most else f"while it runs, it can have {least} to {most}"
        )
        return Rule(Effect.LIVE, note, least=least, most=most, outside=Effect.RESTART)


def processors_from(slots: Sequence[Mapping[str, Any]], kvm: bool) -> Processors:
    """From what QEMU answers to query-hotpluggable-cpus."""
    ordered = sorted(
        slots, key=lambda slot: [slot["props"].get(key, 0) for key in ("socket-id", "die-id", "core-id", "thread-id")]
    )
    found = []
    for number, slot in enumerate(ordered):
        path = slot.get("qom-path")
        id = path.removeprefix(_PLUGGED) if path is not None and path.startswith(_PLUGGED) else None
        found.append(Slot(number, slot["type"], slot["props"], path is not None, id))
    return Processors(found, not kvm)


def has_room(spec: Spec) -> bool:
    """Whether CPUs may come while it runs, so that the guest has a say in how many it uses."""
    return int(spec.get("cpus", {}).get("max", 1)) > 1


def online(listed: str) -> int:
    """How many CPUs ``/sys/devices/system/cpu/online`` names: ``0-2,5`` are four."""
    ranges = (part.partition("-") for part in listed.strip().split(",") if part)
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
