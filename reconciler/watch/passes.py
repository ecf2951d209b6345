"""WATCH, the two halves of a pass as workers do them: look and plan; carry out. Neither touches the daemon."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from reconciler import execution, loop
from reconciler.model import ATTACHMENTS, Desired, Outcome, Plan, ResourceId, Step, World
from reconciler.planning import PlanOptions
from reconciler.planning.towers import machines_of
from reconciler.ports import Backend
from reconciler.preparation import Wanted
from reconciler.resolution.bonds import Bonds
from reconciler.watch.unattended import Held, Rules, sort_out, worst_unattended


@dataclass(frozen=True, slots=True)
class Pass:
    """What is looked at. everything: all that is declared, and with prune also what is not;
    only: else these, see ``with_attachments``."""

    wanted: Wanted
    keys: frozenset[ResourceId]
    everything: bool
    backends: Mapping[str, Backend]
    only: frozenset[ResourceId] = frozenset()


@dataclass(frozen=True, slots=True)
class Looked:
    """What a pass came to."""

    about: Pass
    plan: Plan
    world: World
    held: Mapping[ResourceId, Held]


@dataclass(frozen=True, slots=True)
class Island:
    """Steps that have to do with each other, and with no others."""

    about: Pass
    plan: Plan
    world: World

    @property
    def ids(self) -> frozenset[ResourceId]:
        return frozenset(step.id for step in self.plan.work)


def look(about: Pass, rules: Rules) -> Looked:
    """Read afresh and plan. Backends that do not answer are in the world as such: nothing is raised for them."""
    wanted = about.wanted
    only, worst = frozenset() if about.everything else about.only, worst_unattended(wanted.approve)
    options = PlanOptions(prune=wanted.prune, only=only, unattended=worst)
    plan, world = loop.make_plan(wanted, about.backends, options)
    plan, held = sort_out(plan, wanted.desired, world, rules)
    return Looked(about, plan, world, held)


def island(looked: Looked, steps: Collection[Step]) -> Island:
    """These steps alone, with what they are carried out with."""
    ids = {step.id for step in steps}
    adjusted = {id: want for id, want in looked.plan.adjusted.items() if id in ids}
    return Island(looked.about, replace(looked.plan, steps=tuple(steps), adjusted=adjusted), looked.world)


def carry_out(one: Island, on_event: execution.OnEvent, parallel: int, stop: threading.Event) -> list[Outcome]:
    """An outcome for every step."""
    job = execution.Job(one.plan, one.about.wanted.desired, one.world, one.about.backends, on_event, parallel, stop)
    return execution.execute(job)


def with_attachments(keys: Collection[ResourceId], users: Bonds) -> frozenset[ResourceId]:
    """With the Shares, Devices and PortForwards of guests: their steps are carried by their guests'.
    users: who needs what."""
    return frozenset({*keys, *(id for id in users.who(keys) if id.kind in ATTACHMENTS)})


def with_users(keys: Collection[ResourceId], users: Bonds) -> set[ResourceId]:
    """With what needs them: a network that moves takes its users along."""
    return {*keys, *users.who(keys)}


def told(backend: str, ids: Collection[ResourceId] | None, desired: Mapping[ResourceId, Desired]) -> set[ResourceId]:
    """What to look at when a backend says that these (None: any of them) may have changed.

    With a VM also what lives in the LXD inside of it.
    """
    if ids is None:
        found = {id for id, want in desired.items() if want.backend == backend}
    else:
        kinds = {id.kind for id in ids if id.name == "*"}
        here = {id for id in ids if id in desired and desired[id].backend == backend}
        found = here | {id for id, want in desired.items() if kinds and id.kind in kinds and want.backend == backend}
    if any(id.kind == "VirtualMachine" for id in found):
        inside = {name for name, machine in machines_of(desired).items() if machine in found}
        found |= {id for id, want in desired.items() if want.backend in inside}
    return found
