"""What one step is given while it is carried out: handed from function to function instead of ten arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.console import Console
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.marks import Mark
from reconciler.model import Change, Desired, Observed, Spec, Step
from reconciler.ports import Settings, Tell
from reconciler.problems import Problem, Refused


@dataclass(frozen=True, slots=True)
class Task:
    """One step under way. observed is what the plan was made from; the object itself is read again before writing.

    images: (name, identity) → fingerprint, for the images that this pass has found to be the declared ones.
    """

    client: Client
    settings: Settings
    step: Step
    desired: Desired | None
    observed: Observed | None
    tell: Tell
    deadline: Deadline
    images: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The object's name in LXD."""
        return self.step.id.name.partition("@")[0]

    @property
    def console(self) -> Console:
        """The console of the guest that this step is about."""
        return Console.of(self.client, self.settings.state, self.name)

    @property
    def marked_id(self) -> str:
        """The id that its mark bears: without the host, which is where it stands anyway."""
        return f"{self.step.id.kind}/{self.name}"

    @property
    def spec(self) -> Spec:
        """What is wanted; only for steps that want something (everything but delete)."""
        assert self.desired is not None
        return self.desired.spec

    @property
    def renamed_from(self) -> str | None:
        """The old name when this step renames."""
        change = self.special("metadata", "name")
        return str(change.old).rpartition("/")[2] if change else None

    @property
    def adopting(self) -> bool:
        """Whether this step takes over what was not ours."""
        return self.special("owner") is not None

    def special(self, *path: str) -> Change | None:
        """The change with exactly that path, if the step has one."""
        return next((change for change in self.step.changes if change.path == path), None)

    def mark(self, pending: str | None = None, image: Spec | None = None, owed: str | None = None) -> Mark:
        """The mark that says: this is ours, applied as wanted here."""
        later = self.desired.later if self.desired is not None else None
        return Mark(self.settings.environment, self.marked_id, self.spec, pending, image, owed, later)

    def check_ours(self, mark: Mark | None) -> None:
        """Raise Refused unless the object bears this environment's mark, or is being adopted."""
        if self.adopting or (mark is not None and mark.environment == self.settings.environment):
            return
        whose = f'it belongs to environment "{mark.environment}"' if mark else "it is not ours"
        raise Refused(Problem(f"{whose}: left alone", subject=str(self.step.id), hint="--adopt takes it over"))
