"""OBSERVE and APPLY for ``Image`` resources of type virtual-machine: a name of ours for files in the image cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.backends.qemu.ledger import Entry, Ledger
from reconciler.model import Desired, Observed, Spec, Step, Verb
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

if TYPE_CHECKING:
    from reconciler.backends.images import MachineImage


_UNUSED = 7 * 86400.0
"""Seconds that what was built or fetched stays at hand when nobody asks for it or declares it any more."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one state folder that have names."""

    state: Path

    @property
    def _ledger(self) -> Ledger:
        return Ledger("Image", self.state / "images" / "names")

    def observe(self, name: str) -> Observed | None:
        """The image as it is here; with ``pending`` when its files are gone."""
        entry = self._ledger.find(name)
        if entry is None:
            return None
        from reconciler.backends.images import cached_machine  # only where there are images at all

        pending = entry.pending
        if pending is None and cached_machine(entry.applied["source"], self.state) is None:
            pending = "its files are gone"
        return entry.observed(entry.applied, pending)

    def names(self) -> list[str]:
        """All that there are."""
        return self._ledger.names()

    def apply(self, step: Step, desired: Desired | None, environment: str, tell: Tell) -> None:
        """Carry out one step; guests have links of their own to an image's files, so none is harmed by any of it."""
        if step.verb is Verb.DELETE:
            self._delete(step.id.name)
        elif desired is not None:
            self._make(desired, environment, tell)

    def get(self, name: str, subject: str, tell: Tell) -> tuple[MachineImage, Spec]:
        """The files of a named image, made again if need be, and what was applied. Refused when there is none."""
        from reconciler.backends.images import machine_image

        entry = self._ledger.find(name)
        if entry is None:
            hint = f"declare Image/{name} with type: virtual-machine"
            raise Refused(Problem(f"there is no image {name}", subject=subject, hint=hint))
        return machine_image(entry.applied["source"], self.state, tell), entry.applied

    def _make(self, desired: Desired, environment: str, tell: Tell) -> None:
        from reconciler.backends.images import machine_image

        old = self._ledger.find(desired.id.name)
        entry = Entry(str(desired.id), environment, desired.spec, "create", old.facts if old else {})
        self._ledger.save(entry)
        image = machine_image(desired.spec["source"], self.state, tell)
        self._ledger.save(Entry(entry.id, environment, desired.spec, None, {"key": image.key}))
        self._tidy(old)

    def _delete(self, name: str) -> None:
        entry = self._ledger.find(name)
        self._ledger.forget(name)
        self._tidy(entry)

    def _tidy(self, old: Entry | None) -> None:
        """What is declared stays. A copy of a file goes with its last name; what had to be built or fetched stays at
        hand for a while, so that who deletes and applies again need not wait."""
        from reconciler.backends.images import drop, expire

        entries = [self._ledger.find(name) for name in self._ledger.names()]
        keep = {str(entry.facts["key"]) for entry in entries if entry and entry.facts.get("key")}
        gone = str(old.facts.get("key") or "") if old else ""
        if old and gone and gone not in keep and "file" in old.applied["source"]:
            drop(gone, self.state)
        expire(keep, _UNUSED, self.state)
