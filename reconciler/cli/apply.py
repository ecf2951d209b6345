"""``reconciler apply``: plan, ask where something is interrupted, do it, look again."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.cli import BUG, INTERRUPTED, PROBLEM
from reconciler.cli.carry import Carrier, agreed
from reconciler.cli.screen import show_problems, tell
from reconciler.cli.session import opened, plan_options, read, settings, unanswered
from reconciler.ports import Backend
from reconciler.problems import Problem, UsageError
from reconciler.view.plans import plan_lines

if TYPE_CHECKING:
    from reconciler.model import Plan
    from reconciler.planning import PlanOptions
    from reconciler.preparation import Wanted


def run(arguments: argparse.Namespace) -> int:
    """From paths or from a saved plan; 0 only when a fresh look says converged."""
    from reconciler.record import locked

    wanted, options, promised = _what(arguments)
    told = settings(wanted.environment, arguments.timeout, options.confirm_delete)
    with (
        opened(wanted.desired.values(), told, options.prune) as backends,
        locked(told.state, wanted.environment, arguments.lock_timeout, _waiting),
    ):
        code = _apply(arguments, wanted, options, backends, promised)
    return keep_names(wanted, code)


def keep_names(wanted: Wanted, code: int) -> int:
    """At the end, whatever it came to: where the environment asks for it, guests can be found by their names."""
    if wanted.names and code not in (BUG, INTERRUPTED):
        from reconciler.cli import hosts

        hosts.keep_up(wanted.desired)
    return code


def _what(arguments: argparse.Namespace) -> tuple[Wanted, PlanOptions, Plan | None]:
    """What is wanted, how to plan it, and the plan that was promised, where a saved one is applied."""
    from reconciler import saved
    from reconciler.preparation import Wanted, check_policy
    from reconciler.secrets import renewed

    file = Path(arguments.paths[0])
    if len(arguments.paths) == 1 and saved.is_saved_plan(file):
        _check_trusted(file)
        kept = saved.read(file)
        check_policy(kept.desired)
        kept = replace(kept, desired={want.id: want for want in renewed(kept.desired.values())})
        known = Wanted(kept.environment, kept.desired, kept.options.prune, names=kept.names)
        return known, kept.options, kept.plan
    wanted = read(arguments.paths)
    return wanted, plan_options(arguments, wanted), None


def _check_trusted(file: Path) -> None:
    """A saved plan has been through every check already: nobody but us may have been able to change it."""
    about = file.stat()
    if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
        raise UsageError(
            Problem("a saved plan must be our own, and writable by nobody else", subject=str(file), hint="plan again")
        )


def _apply(
    arguments: argparse.Namespace,
    wanted: Wanted,
    options: PlanOptions,
    backends: Mapping[str, Backend],
    promised: Plan | None,
) -> int:
    from reconciler import loop, saved

    plan, world = loop.make_plan(wanted, backends, options)
    show_problems(unanswered(world, plan))
    if promised is not None:
        saved.refuse_if_moved(promised, plan)
    waits = any(step.waiting for step in plan.steps)
    if arguments.output == "table" and (arguments.verbose or waits or not plan.in_sync):
        tell(plan_lines(plan, wanted.desired, arguments.verbose, followed=True))
    elif plan.blocker:
        show_problems([plan.blocker])
    # Whoever applies a saved plan has seen it: it is not asked about again.
    if plan.blocker or not agreed(plan, arguments.yes or promised is not None, wanted.approve, wanted.desired):
        return PROBLEM
    keep_session(plan, wanted, arguments.owner)
    with Carrier(plan, arguments.parallel, "apply") as carrier:
        agree = partial(
            agreed, yes=arguments.yes or promised is not None, approve=wanted.approve, desired=wanted.desired
        )
        done = loop.apply_plan(wanted, plan, world, backends, options, replace(carrier.options, agree=agree))
    return carrier.finish(done, arguments.output)


def keep_session(plan: Plan, wanted: Wanted, owner: int | None) -> None:
    """Before anything is started: what ends with a session has somebody who sees to it. owner: as ``--owner`` says."""
    if any(want.spec.get("lifetime") == "session" for want in wanted.desired.values()):
        from reconciler.cli import owners

        owners.keep(wanted.desired, (step.id for step in plan.steps), wanted.environment, owner)


def _waiting(holder: str) -> None:
    show_problems([Problem(f"waiting for another apply: {holder}")])
