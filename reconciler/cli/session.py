"""What several verbs share: manifests read into a Wanted, backends opened and closed again, options put together."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.cli.naming import among, suggestion
from reconciler.desired import LOCAL_HOST, Desired, ResourceId, lxd_backend
from reconciler.paths import private_dir, runtime_dir, state_dir
from reconciler.problems import Problem, UsageError

if TYPE_CHECKING:
    from reconciler.composition import Composition
    from reconciler.model import Plan, World
    from reconciler.planning import PlanOptions
    from reconciler.ports import Backend, Settings
    from reconciler.preparation import Wanted
    from reconciler.verdict import Verdict

ANY_ENVIRONMENT = "default"


def verdict_of(paths: Sequence[str]) -> Verdict:
    """Whether the manifests are right. Raises ManifestError with every problem."""
    from reconciler.verdict import verdict

    return verdict(paths, _stdin(paths))


def _stdin(paths: Sequence[str]) -> bytes | None:
    return sys.stdin.buffer.read() if "-" in paths else None


def read(paths: Sequence[str]) -> Wanted:
    """The manifests behind the paths; ``-`` is standard input. Raises ManifestError with every problem."""
    from reconciler import preparation

    return preparation.prepare(paths, _stdin(paths))


def declared(paths: Sequence[str]) -> Wanted:
    """The same for whoever only wants to know what is declared, and where: secrets are not asked for."""
    from reconciler import preparation

    return preparation.prepare(paths, _stdin(paths), secrets=False)


def rendered(paths: Sequence[str]) -> Composition:
    """The same, composed and no further."""
    from reconciler import preparation

    return preparation.render(paths, _stdin(paths))


@contextlib.contextmanager
def opened(desired: Iterable[Desired], settings: Settings, everything: bool = False) -> Iterator[dict[str, Backend]]:
    """Every backend that the resources need, with ``everything`` this machine's own as well; closed at the end."""
    from reconciler.backends import open_backends

    wanted = list(desired)
    backends = open_backends(wanted, settings, everything)
    if everything and not _has_lxd(settings) and lxd_backend(LOCAL_HOST) not in {want.backend for want in wanted}:
        del backends[lxd_backend(LOCAL_HOST)]  # opening did nothing yet; who only has VMs is not told about LXD
    try:
        yield backends
    finally:
        for backend in backends.values():
            backend.close()


def _has_lxd(settings: Settings) -> bool:
    """Whether there is, or once was, an LXD to speak to: one that was stopped may still hold containers of ours."""
    from reconciler.backends.lxd.address import embedded_folder, find_socket

    path, _origin = find_socket(settings.state, os.environ)
    return path.parent != embedded_folder(settings.state) or path.parent.exists()


def settings(environment: str, timeout: float = 300.0, confirm_delete: bool = False) -> Settings:
    """What backends are told; the state folder exists and is ours alone."""
    from reconciler.ports import Settings

    return Settings(environment, private_dir(state_dir()), runtime_dir(), timeout, confirm_delete)


def plan_options(arguments: argparse.Namespace, wanted: Wanted) -> PlanOptions:
    """From the command line and environment.yaml; ``--only`` must name something that is declared."""
    from reconciler.model import Effect
    from reconciler.planning import PlanOptions

    return PlanOptions(
        prune=getattr(arguments, "prune", False) or wanted.prune,
        adopt=getattr(arguments, "adopt", False),
        only=_only(arguments.only, wanted.desired),
        confirm_delete=getattr(arguments, "confirm_delete", False),
        allow=Effect(arguments.allow) if getattr(arguments, "allow", None) else None,
    )


def _only(words: Sequence[str], desired: Mapping[ResourceId, Desired]) -> frozenset[ResourceId]:
    homes = {
        id: {want.backend.removeprefix("lxd/")} if id.kind == "Container" else set[str]()
        for id, want in desired.items()
    }
    chosen = [among(word, homes) for word in words]
    missing = [id for id in chosen if id not in desired]
    if missing:
        raise UsageError([_not_declared(id, desired) for id in missing])
    return frozenset(chosen)


def _not_declared(id: ResourceId, desired: Mapping[ResourceId, Desired]) -> Problem:
    return Problem("--only: no manifest declares it", subject=str(id), hint=suggestion(str(id), map(str, desired)))


def unanswered(world: World, plan: Plan | None = None) -> list[Problem]:
    """Which backends did not answer, why, and what helps; what lives there is held.

    An LXD inside of a VM that the plan is about to bring up is not a problem.
    """
    from reconciler.model import Verb

    coming = {step.backend for step in plan.steps if step.awaits or step.verb is Verb.CREATE} if plan else set()
    found = ((name, world.problem(name)) for name in world.snapshots if name not in coming)
    return [problem if problem.subject else replace(problem, subject=name) for name, problem in found if problem]
