"""``reconciler delete``: what manifests declare, or single resources by ``Kind/name`` or ``vm/container``. Ours only,
data kept."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from reconciler.cli import PROBLEM
from reconciler.cli.apply import keep_names
from reconciler.cli.carry import Carrier, agreed
from reconciler.cli.lookup import Seen, find, look
from reconciler.cli.naming import address, is_guest_name, resource_id
from reconciler.cli.screen import show_problems, tell
from reconciler.cli.session import ANY_ENVIRONMENT, declared, opened, settings, unanswered
from reconciler.model import ResourceId
from reconciler.ports import Backend
from reconciler.preparation import Wanted
from reconciler.problems import Problem, UsageError
from reconciler.view.plans import GONE, plan_lines

Targets = dict[ResourceId, str | None]
_ID = re.compile(r"[A-Z][A-Za-z]*/[^/]+")


def run(arguments: argparse.Namespace) -> int:
    """Plan the deletion, ask, carry it out."""
    from reconciler.record import locked

    wanted, targets = _targets(arguments)
    desired, environment = wanted.desired, wanted.environment
    told = settings(environment, arguments.timeout, arguments.confirm_delete)
    with (
        opened(desired.values(), told, everything=True) as backends,
        locked(told.state, environment, arguments.lock_timeout),
    ):
        code = _delete(arguments, environment, targets, backends)
    return keep_names(wanted, code)


def _targets(arguments: argparse.Namespace) -> tuple[Wanted, Targets]:
    """What is declared, and what of it goes (or what was named), each with the backend it lives in where known."""
    names = [word for word in arguments.paths if is_id(word)]
    paths = [word for word in arguments.paths if word not in names]
    if lost := [word for word in paths if is_guest_name(word) and not Path(word).exists()]:
        raise UsageError([Problem("there is no such file or folder", subject=one, hint=_by_kind(one)) for one in lost])
    if names and paths:
        raise UsageError(Problem("either manifests or names, not both", hint="delete them one after the other"))
    if paths:
        wanted = declared(paths)
        homes: Targets = {id: want.backend for id, want in wanted.desired.items() if id.kind != "Host"}
        return wanted, homes
    desired = declared(arguments.manifests).desired if arguments.manifests else {}
    with look(arguments) as seen:
        targets: Targets = {}
        for name in names:
            id, home = _target(seen, name, arguments.environment)
            if id in targets:
                raise UsageError(Problem(f"{id} is named twice", hint="delete them one after the other"))
            targets[id] = home
        return Wanted(arguments.environment or _environment_of(seen, targets), desired), targets


def _by_kind(name: str) -> str:
    """What is deleted is called by all of its name."""
    return f"a guest is named with its kind: Container/{name} or VirtualMachine/{name}"


def _target(seen: Seen, name: str, environment: str | None) -> tuple[ResourceId, str | None]:
    """What is meant, and the backend that it lives in where that had to be found out."""
    if address(name) is not None:
        one = find(seen, name, environment)
        return one.id, one.backend
    id = resource_id(name)
    ours = [one for one in seen.world if one.id == id and one.owned]
    if id.kind == "Container" and len(ours) > 1:
        one = find(seen, name, environment)  # says how to tell them apart
        return id, one.backend
    return id, None


def _environment_of(seen: Seen, targets: Targets) -> str:
    """Whose the named resources are, when nobody said; they must agree."""
    found = [one for one in seen.resources if one.id in targets and targets[one.id] in (None, one.backend)]
    marks = {one.environment for one in found if one.environment}
    if len(marks) > 1:
        names = ", ".join(sorted(mark for mark in marks if mark))
        raise UsageError(Problem(f"they belong to several environments: {names}", hint="say --environment"))
    return next((mark for mark in marks if mark), ANY_ENVIRONMENT)


def is_id(word: str) -> bool:
    """``Kind/name`` or ``vm/container``, and not a file that happens to be called so, or would be in a folder here."""
    if Path(word).exists():
        return False
    return bool(_ID.fullmatch(word)) or (address(word) is not None and not Path(word).parent.exists())


def _delete(arguments: argparse.Namespace, environment: str, targets: Targets, backends: Mapping[str, Backend]) -> int:
    from reconciler import loop
    from reconciler.planning import PlanOptions

    plan, world = loop.delete(environment, targets, backends, PlanOptions(confirm_delete=arguments.confirm_delete))
    show_problems(unanswered(world))
    if arguments.output == "table":
        tell(plan_lines(plan, {}, verbose=True, good=GONE, followed=True))
    if plan.blocker:
        show_problems([plan.blocker])
        return PROBLEM
    if not agreed(plan, arguments.yes, {}):
        return PROBLEM
    with Carrier(plan, arguments.parallel, "delete") as carrier:
        done = loop.apply_delete(plan, world, backends, carrier.options)
    return carrier.finish(done, arguments.output)
