"""``reconciler reset``: throw a guest away and have it back from its image; declared Disks and Volumes stay."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from reconciler.cli import PROBLEM
from reconciler.cli.apply import keep_names, keep_session
from reconciler.cli.carry import Carrier, agreed
from reconciler.cli.naming import address, resource_id, suggestion
from reconciler.cli.screen import show_problems, tell
from reconciler.cli.session import opened, read, settings, unanswered
from reconciler.model import GUESTS, Desired, ResourceId, Verb, lxd_backend
from reconciler.ports import Backend
from reconciler.problems import Problem, UsageError
from reconciler.view.plans import plan_lines

if TYPE_CHECKING:
    from reconciler.planning import PlanOptions
    from reconciler.preparation import Wanted


def run(arguments: argparse.Namespace) -> int:
    """Plan it, ask, carry it out; 0 only when it was made anew and a fresh look says converged."""
    from reconciler.planning import PlanOptions, resetting
    from reconciler.record import locked

    wanted = read(arguments.paths)
    id = named(arguments.name, wanted.desired)
    options = PlanOptions(
        only=resetting.concerned(id, wanted.desired), confirm_delete=arguments.confirm_delete, reset=frozenset({id})
    )
    told = settings(wanted.environment, arguments.timeout, arguments.confirm_delete)
    with (
        opened(wanted.desired.values(), told) as backends,
        locked(told.state, wanted.environment, arguments.lock_timeout),
    ):
        code = _reset(arguments, wanted, options, backends)
    return keep_names(wanted, code)


def named(word: str, desired: Mapping[ResourceId, Desired]) -> ResourceId:
    """The declared guest of that name, ``Kind/name`` or ``vm/container``. Raises UsageError, with a way out."""
    guests = {id: want for id, want in desired.items() if id.kind in GUESTS}
    if (parts := address(word)) is not None:
        found = [id for id, want in guests.items() if (id.name, want.backend) == (parts[1], lxd_backend(parts[0]))]
    elif "/" in word:
        found = [id for id in guests if id == resource_id(word)]
    else:
        found = [id for id in guests if id.name == word]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(map(str, sorted(found)))
        raise UsageError(Problem("several guests are called so", subject=word, hint=f"say {names}"))
    known = [name for id in guests for name in (id.name, str(id))]
    raise UsageError(Problem("these manifests declare no such guest", subject=word, hint=suggestion(word, known)))


def _reset(arguments: argparse.Namespace, wanted: Wanted, options: PlanOptions, backends: Mapping[str, Backend]) -> int:
    from reconciler import loop

    plan, world = loop.make_plan(wanted, backends, options)
    show_problems(unanswered(world, plan))
    if arguments.output == "table":
        tell(plan_lines(plan, wanted.desired, arguments.verbose))
    if held := [step for step in plan.steps if step.id in options.reset and step.verb is Verb.HOLD]:
        show_problems([Problem(f"not reset: {step.reason}", subject=str(step.id)) for step in held])
        return PROBLEM
    # What environment.yaml approves of happens by itself; this was asked for by somebody, who is asked back.
    if not agreed(plan, arguments.yes, {}, {}):
        return PROBLEM
    keep_session(plan, wanted, arguments.owner)
    with Carrier(plan, arguments.parallel, "reset") as carrier:
        agree = partial(agreed, yes=arguments.yes, approve=wanted.approve, desired=wanted.desired)
        done = loop.apply_plan(wanted, plan, world, backends, options, replace(carrier.options, agree=agree))
    return carrier.finish(done, arguments.output)
