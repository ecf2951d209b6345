"""Where a watch's manifests lie, to be read again and again: this machine's disk. ``gitops`` has another: a commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from reconciler import policy, preparation, validation
from reconciler.manifest import Document
from reconciler.resolution import Surroundings

Note = Callable[[Iterable[str]], object]


class Origin(Protocol):
    """One state of the manifests' files."""

    def load(self, parsed: validation.Parsed) -> Sequence[Document]:
        """Everything, as it is written, or taken from what was parsed. Raises ManifestError with every problem."""

    def load_listed(self, path: str, parsed: validation.Parsed, note: Note) -> Sequence[Document]:
        """The same of what an Environment lists; note: is told which files were read."""

    def surroundings(self, rules: policy.Policy, asked: set[str]) -> Surroundings:
        """What they may point at. asked: gets the files that images and secrets are made of; what else is read is
        noted by whoever resolves."""

    def doubtful(self, before: Origin, files: Collection[str]) -> Collection[str]:
        """Which of these files beside the manifests (absolute paths) may be others than in that earlier state."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Files and folders."""

    paths: tuple[str, ...]

    def load(self, parsed: validation.Parsed) -> validation.Loaded:
        return validation.load_parts(self.paths, parsed=parsed)

    def load_listed(self, path: str, parsed: validation.Parsed, note: Note) -> Sequence[Document]:
        loaded = validation.load_parts([path], patched=True, parsed=parsed)
        note(loaded.files)
        return loaded

    def surroundings(self, rules: policy.Policy, asked: set[str]) -> Surroundings:
        around = preparation.surroundings()
        noted = preparation.noting(around, asked.add)
        return replace(around, stamp=noted.stamp, secret=preparation.asking(rules, noted.read))

    def doubtful(self, before: Origin, files: Collection[str]) -> Collection[str]:
        return files
