"""OBSERVE and APPLY for ``Disk`` resources: a file with a guest's data that outlives every VM it is attached to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.backends.qemu import qemu_img
from reconciler.backends.qemu.headers import Header, check, read_header
from reconciler.backends.qemu.ledger import Entry, Ledger
from reconciler.model import Condition, Desired, Observed, Spec, Step, Verb
from reconciler.paths import private_dir
from reconciler.problems import Problem, Refused

Resize = Callable[[str, int], bool]
"""(Disk name, bytes) → whether a running QEMU that has the disk has grown it."""
Follow = Callable[[str, int], None]
"""(Disk name, bytes) → the guest that has it mounted, if one does, uses all of it."""


@dataclass(frozen=True, slots=True)
class Disks:
    """The disks of one state folder."""

    state: Path

    @property
    def _ledger(self) -> Ledger:
        return Ledger("Disk", self.state / "disks")

    def names(self) -> list[str]:
        """All that there are."""
        return self._ledger.names()

    def observe(self, name: str) -> Observed | None:
        """The disk as its own header tells it. One whose file is gone is not known: never make an empty one instead."""
        entry = self._ledger.find(name)
        if entry is None:
            return None
        path, _ = self.locate(name)
        spec = dict(entry.applied)
        try:
            spec["size"] = header_of(path).size
        except OSError as error:
            if entry.pending is None:
                return replace(entry.observed(spec, None), conditions=(_missing(path, error),))
        return entry.observed(spec, entry.pending)

    def locate(self, name: str) -> tuple[Path, str]:
        """Its file and format. Refused when there is no such disk."""
        entry = self._ledger.find(name)
        if entry is None:
            raise Refused(Problem(f"there is no Disk/{name}", hint="declare it, or take it off the machine"))
        return self._path(entry.applied, name), str(entry.applied.get("format", "qcow2"))

    def apply(self, step: Step, desired: Desired | None, environment: str, resize: Resize, follow: Follow) -> None:
        """Carry out one step. ``resize`` is asked first when a disk has to grow: a VM may be using it.

        ``follow`` comes after that, even if the disk was big enough: an earlier try may have been cut off in between.
        """
        name = step.id.name
        if step.verb is Verb.DELETE:
            self._delete(name)
        elif desired is not None:
            if step.verb is Verb.REPLACE:
                self._delete(name)
            self._make(desired, environment, resize)
            follow(name, int(desired.spec["size"]))
            self._done(desired, environment)

    def _done(self, desired: Desired, environment: str) -> None:
        entry = self._ledger.find(desired.id.name)
        facts = entry.facts if entry is not None else {}
        self._ledger.save(Entry(str(desired.id), environment, desired.spec, None, facts))

    def _make(self, desired: Desired, environment: str, resize: Resize) -> None:
        subject, spec = str(desired.id), desired.spec
        path, format, size = self._path(spec, desired.id.name), str(spec.get("format", "qcow2")), int(spec["size"])
        old = self._ledger.find(desired.id.name)
        # What was there before us is never deleted with the resource.
        facts = {"made": not path.exists() or bool(old and old.facts.get("made"))}
        self._ledger.save(Entry(subject, environment, spec, "create", facts))
        if not path.exists():
            if not path.parent.is_dir() and "path" not in spec:
                private_dir(path.parent)
            qemu_img.create(path, format, size, subject)
        elif self._size(path, format, subject, old is None) < size and not resize(desired.id.name, size):
            with open_disk(path, os.O_RDWR, subject) as handle:
                qemu_img.grow(handle, format, size, subject)

    def _size(self, path: Path, format: str, subject: str, foreign: bool) -> int:
        with open_disk(path, os.O_RDONLY, subject) as handle:
            return (check(handle, format, subject, str(path)) if foreign else read_header(handle)).size

    def _delete(self, name: str) -> None:
        """The file goes too, if we made it: that its data may go was decided before (deletionPolicy, the question)."""
        entry = self._ledger.find(name)
        if entry is not None and entry.facts.get("made"):
            self._path(entry.applied, name).unlink(missing_ok=True)
        self._ledger.forget(name)

    def _path(self, spec: Spec, name: str) -> Path:
        given = spec.get("path")
        return Path(str(given)) if given else self.state / "disks" / f"{name}.{spec.get('format', 'qcow2')}"


def _missing(path: Path, error: OSError) -> Condition:
    message = f"its file {path} cannot be read: {error.strerror}; put it back, or delete the Disk"
    return Condition("Answering", False, "FileMissing", message)


def header_of(path: Path) -> Header:
    """What a disk file says it is. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return read_header(handle)
    finally:
        os.close(handle)


@contextmanager
def open_disk(path: Path, flags: int, subject: str) -> Iterator[int]:
    """A descriptor; Refused when it cannot be had."""
    try:
        handle = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(Problem(f"{path}: {error.strerror}", subject=subject)) from error
    try:
        yield handle
    finally:
        os.close(handle)
