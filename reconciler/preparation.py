"""The first half of a pass, without any backend: manifests → load → compose → validate → resolve → policy → Wanted.

A room of its own, so that ``validate`` imports nothing of the second half.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from reconciler import composition, manifest, policy, resolution, validation
from reconciler.manifest import Document
from reconciler.model import Desired, ResourceId
from reconciler.problems import ManifestError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the manifests come to. approve: what may happen unattended."""

    environment: str
    desired: Mapping[ResourceId, Desired]
    prune: bool = False
    approve: Mapping[str, bool] = field(default_factory=dict)


def prepare(paths: Sequence[str], stdin: bytes | None = None) -> Wanted:
    """load → compose → validate → resolve → policy. Raises ManifestError with every problem; calls no backend.

    Each stage looks at all there is, so a person is told everything that can be told at once; a stage is only skipped
    when what it would say follows from problems that are told already.
    """
    return prepare_documents(validation.load(paths, stdin), surroundings())


def prepare_documents(documents: Sequence[Document], around: resolution.Surroundings) -> Wanted:
    """The same from documents that are right by themselves. Raises ManifestError with every problem."""
    composed = composition.compose(documents, lambda path: validation.load([path]))
    if problems := validation.check_set(composed.documents):
        raise ManifestError(problems)
    desired = resolution.resolve(composed.documents, around)
    check_policy(desired, composed.documents)
    return Wanted(composed.environment, desired, composed.prune, composed.approve)


def check_policy(desired: Mapping[ResourceId, Desired], documents: Sequence[Document] = ()) -> None:
    """Ask the administrator's file. Raises ManifestError with everything that it gives no leave for.

    Asked again when a saved plan is applied: the administrator may have changed their mind since.
    """
    if problems := policy.check(desired.values(), policy.load(documents), documents):
        raise ManifestError(problems)


def surroundings() -> resolution.Surroundings:
    """The local files and LXD remotes that manifests may point at."""
    roots = policy.load().roots  # folders that the administrator opened are open to ``files: [{source}]``, too
    read = partial(manifest.read_payload, roots=roots)
    return resolution.Surroundings(read, _stamp, manifest.read_remotes(), _node)


def _stamp(path: str) -> str:
    about = os.stat(path)
    return f"{about.st_size}-{about.st_mtime_ns}"


def _node(path: str) -> str | None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    return "char" if stat.S_ISCHR(mode) else "block" if stat.S_ISBLK(mode) else None
