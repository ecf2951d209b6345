"""OBSERVE and APPLY, what we remember of disks and images: one small file each, also the mark that they are ours."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from reconciler.model import Json, Observed, ResourceId, Spec
from reconciler.paths import private_dir, write_private
from reconciler.problems import Problem, Refused, Unreachable

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One disk or image of ours. facts: where its files are, and what is known of them."""

    id: str
    environment: str
    applied: Spec
    pending: str | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name without the kind."""
        return ResourceId.parse(self.id).name

    def observed(self, spec: Spec, pending: str | None) -> Observed:
        """What planning is told of it."""
        shown = json.dumps([self.environment, self.applied, dict(spec), pending], sort_keys=True)
        return Observed(
            ResourceId.parse(self.id),
            "qemu",
            spec,
            owned=True,
            revision=hashlib.sha256(shown.encode()).hexdigest(),
            environment=self.environment,
            applied=self.applied,
            pending=pending,
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """All entries of one kind, in one folder."""

    kind: str
    folder: Path

    def path(self, name: str) -> Path:
        """Where the entry of that name is written."""
        if not _NAME.fullmatch(name):
            raise Refused(Problem(f'expected a name of a-z, 0-9 and "-", got "{name}"', subject=f"{self.kind}/{name}"))
        return self.folder / f"{name}.json"

    def find(self, name: str) -> Entry | None:
        """The entry; None when there is none. Unreachable when it cannot be read: then nothing may be concluded."""
        path = self.path(name)
        try:
            return Entry(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise Unreachable(
                Problem(f"its record {path} cannot be read: {error}", subject=f"{self.kind}/{name}")
            ) from error

    def save(self, entry: Entry) -> Entry:
        """Write it as a whole or not at all; returns it."""
        private_dir(self.folder)
        write_private(self.path(entry.name), json.dumps(asdict(entry), sort_keys=True, indent=1).encode())
        return entry

    def forget(self, name: str) -> None:
        """There is no such thing any more."""
        self.path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All that there are."""
        if not self.folder.is_dir():
            return []
        return sorted(path.stem for path in self.folder.glob("*.json") if _NAME.fullmatch(path.stem))
