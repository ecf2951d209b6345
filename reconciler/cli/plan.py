"""``reconciler plan``: what apply would do, and what that would cost. Changes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.cli import CHANGES, DONE, PROBLEM
from reconciler.cli.screen import show, show_json, show_problems
from reconciler.cli.session import opened, plan_options, read, settings, unanswered
from reconciler.model import Desired, Plan, ResourceId
from reconciler.problems import Problem, UsageError

if TYPE_CHECKING:
    from reconciler.planning import PlanOptions
    from reconciler.preparation import Wanted


def run(arguments: argparse.Namespace) -> int:
    """Show the plan; save it where asked to."""
    from reconciler import loop

    wanted = read(arguments.paths)
    options = plan_options(arguments, wanted)
    with opened(wanted.desired.values(), settings(wanted.environment, arguments.timeout), options.prune) as backends:
        plan, world = loop.make_plan(wanted, backends, options)
    show_problems(unanswered(world, plan))
    if arguments.out:
        _save(arguments.out, wanted, options, plan)
    show_plan(plan, wanted.desired, arguments.output, arguments.verbose)
    return exit_code(plan, arguments.exit_code)


def _save(file: str, wanted: Wanted, options: PlanOptions, plan: Plan) -> None:
    from reconciler import saved

    try:
        saved.write(Path(file), wanted.desired, options, plan, wanted.names)
    except OSError as error:
        raise UsageError(Problem(f"cannot save the plan: {error.strerror}", subject=file)) from error


def show_plan(plan: Plan, desired: Mapping[ResourceId, Desired], form: str, verbose: bool) -> None:
    """To stdout, in the form that was asked for."""
    if form == "json":
        from reconciler.view.documents import plan_document

        show_json(plan_document(plan))
    elif form == "name":
        from reconciler.view.text import clean, line

        show(line(clean(str(step.id))) for step in plan.work)
    else:
        from reconciler.view.plans import plan_lines

        show(plan_lines(plan, desired, verbose))


def exit_code(plan: Plan, tell_changes: bool) -> int:
    """What is held or blocked is a problem; changes only count when asked about."""
    if not plan.complete:
        return PROBLEM
    return CHANGES if tell_changes and not plan.in_sync else DONE
