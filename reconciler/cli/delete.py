"""``reconciler delete``: what manifests declare, or single resources by ``Kind/name``. Ours only, data kept."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from reconciler import attachments
from reconciler.cli import PROBLEM
from reconciler.cli.carry import Carrier, agreed
from reconciler.cli.screen import show_problems, tell
from reconciler.cli.session import ANY_ENVIRONMENT, opened, read, resource_id, settings, unanswered
from reconciler.model import Desired, ResourceId
from reconciler.observation import observe
from reconciler.ports import Backend
from reconciler.problems import Problem, UsageError
from reconciler.view.plans import plan_lines

Targets = dict[ResourceId, str | None]
_ID = re.compile(r"[A-Z][A-Za-z]*/[^/]+")


def run(arguments: argparse.Namespace) -> int:
    """Plan the deletion, ask, carry it out."""
    from reconciler.record import locked

    desired, targets, environment = _targets(arguments)
    told = settings(environment, arguments.timeout, arguments.confirm_delete)
    with (
        opened(desired.values(), told, everything=True) as backends,
        locked(told.state, environment, arguments.lock_timeout),
    ):
        return _delete(arguments, environment, targets, backends)


def _targets(arguments: argparse.Namespace) -> tuple[Mapping[ResourceId, Desired], Targets, str]:
    """Everything declared (or what was named), each with the backend it lives in where known; the environment."""
    names = [word for word in arguments.paths if is_id(word)]
    paths = [word for word in arguments.paths if word not in names]
    if names and paths:
        raise UsageError(Problem("either manifests or Kind/name, not both", hint="delete them one after the other"))
    if paths:
        wanted = read(paths)
        homes: Targets = {id: want.backend for id, want in wanted.desired.items() if id.kind != "Host"}
        return wanted.desired, homes, wanted.environment
    targets: Targets = {resource_id(name): None for name in names}
    desired = read(arguments.manifests).desired if arguments.manifests else {}
    return desired, targets, arguments.environment or _environment_of(desired, targets)


def _environment_of(desired: Mapping[ResourceId, Desired], targets: Targets) -> str:
    """Whose the named resources are, when nobody said; they must agree."""
    with opened(desired.values(), settings(ANY_ENVIRONMENT), everything=True) as backends:
        world = observe(backends)
        found = [seen for seen in (*world, *attachments.observed(world)) if seen.id in targets]
    marks = {seen.environment for seen in found if seen.environment}
    if len(marks) > 1:
        names = ", ".join(sorted(mark for mark in marks if mark))
        raise UsageError(Problem(f"they belong to several environments: {names}", hint="say --environment"))
    return next((mark for mark in marks if mark), ANY_ENVIRONMENT)


def is_id(word: str) -> bool:
    """``Kind/name``, and not a file that happens to be called so."""
    return bool(_ID.fullmatch(word)) and not Path(word).exists()


def _delete(arguments: argparse.Namespace, environment: str, targets: Targets, backends: Mapping[str, Backend]) -> int:
    from reconciler import loop
    from reconciler.planning import PlanOptions

    plan, world = loop.delete(environment, targets, backends, PlanOptions(confirm_delete=arguments.confirm_delete))
    show_problems(unanswered(world))
    if arguments.output == "table":
        tell(plan_lines(plan, {}, verbose=True))
    if plan.blocker:
        show_problems([plan.blocker])
        return PROBLEM
    if not agreed(plan, arguments.yes, {}):
        return PROBLEM
    with Carrier(plan, arguments.parallel, "delete") as carrier:
        done = loop.apply_delete(plan, world, backends, carrier.options)
    return carrier.finish(done, arguments.output)
