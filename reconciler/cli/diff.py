"""``reconciler diff``: the plan as a unified list of fields, for eyes and tools that know diffs."""

from __future__ import annotations

import argparse

from reconciler.cli.plan import exit_code
from reconciler.cli.screen import show, show_problems
from reconciler.cli.session import opened, plan_options, read, settings, unanswered
from reconciler.view.plans import diff_lines


def run(arguments: argparse.Namespace) -> int:
    """Show what differs; what is not declared is not looked at."""
    from reconciler import loop

    wanted = read(arguments.paths)
    options = plan_options(arguments, wanted)
    with opened(wanted.desired.values(), settings(wanted.environment)) as backends:
        plan, world = loop.make_plan(wanted, backends, options)
    show_problems(unanswered(world, plan))
    show(diff_lines(plan))
    return exit_code(plan, arguments.exit_code)
