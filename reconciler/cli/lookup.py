"""What get, describe, delete and the guest verbs share: look at every backend, find what somebody named."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reconciler import attachments
from reconciler.cli.naming import address, homes, is_named, resource_id, suggestion
from reconciler.cli.session import ANY_ENVIRONMENT, declared, opened, settings, unanswered
from reconciler.model import GUESTS, Condition, Desired, Observed, Power, ResourceId, World
from reconciler.observation import observe
from reconciler.ports import Backend
from reconciler.problems import Problem, UsageError


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at everything, and the backends it came from (still open)."""

    backends: Mapping[str, Backend]
    world: World

    @property
    def resources(self) -> list[Observed]:
        """All that is there; Shares, Devices and PortForwards as their guests have them."""
        return [*self.world, *attachments.observed(self.world)]

    @property
    def problems(self) -> list[Problem]:
        """Which backends did not answer, and why."""
        return unanswered(self.world)


@contextlib.contextmanager
def look(arguments: argparse.Namespace, hosts: Iterable[Desired] = ()) -> Iterator[Seen]:
    """Observe this machine's backends, and the Hosts that ``--manifests`` declare. hosts: others that are known of."""
    desired: Mapping[ResourceId, Desired] = declared(arguments.manifests).desired if arguments.manifests else {}
    wanted = [*(host for host in hosts if host.id not in desired), *desired.values()]
    with opened(wanted, settings(arguments.environment or ANY_ENVIRONMENT), everything=True) as backends:
        yield Seen(backends, observe(backends))


def find(seen: Seen, name: str, environment: str | None) -> Observed:
    """The one resource of this ``Kind/name`` or ``vm/container``, or the one guest of this bare name; else a UsageError
    with a way out."""
    matching = [one for one in seen.resources if is_named(one, name) and environment in (None, one.environment)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        places = ", ".join(f"{one.id} on {one.backend}" for one in matching)
        hint = f"say {' or '.join(sorted({_clear(one) for one in matching}))}, or --environment"
        raise UsageError(Problem(f"several are called so: {places}", subject=name, hint=hint))
    raise UsageError(absent(seen, name))


def running_in(world: World, machine: Observed) -> list[Observed]:
    """Our containers in that VM which run."""
    found = [one for one in world if one.id.kind == "Container" and machine.id in one.needs]
    return [one for one in found if one.owned and one.power is Power.RUNNING]


def absent(seen: Seen, name: str) -> list[Problem]:
    """Why nothing of that name was found, and a way out."""
    if asleep := _sleeping(seen, name):
        return [asleep]
    if seen.problems:
        return [Problem("not found where we could look", subject=name), *seen.problems]
    known = [str(one.id) for one in seen.resources]
    for one in seen.world:
        known += [one.id.name] * (one.id.kind in GUESTS) + [f"{home}/{one.id.name}" for home in sorted(homes(one))]
    return [Problem("there is no such resource", subject=name, hint=suggestion(name, known))]


def _sleeping(seen: Seen, name: str) -> Problem | None:
    """What to say of a container in a VM that does not run: whether it is there cannot be known."""
    if (parts := address(name)) is None:
        resource_id(name) if "/" in name else None
        return None
    id = ResourceId("VirtualMachine", parts[0])
    machine = next((one for one in seen.world if one.id == id), None)
    if machine is None or machine.power not in (Power.STOPPED, Power.ERROR):
        return None
    hint = f"`reconciler start {id}` starts it"
    return Problem(f"{id} does not run, and what is inside cannot be seen", subject=name, hint=hint)


def _clear(one: Observed) -> str:
    """The shortest name that tells it from others of the same name."""
    return next((f"{home}/{one.id.name}" for home in sorted(homes(one))), str(one.id))


def probe(seen: Seen, resources: list[Observed]) -> dict[tuple[str, ResourceId], tuple[Condition, ...]]:
    """The conditions of each resource right now; guests of ours that run are tried, all at once."""

    def conditions(one: Observed) -> tuple[Condition, ...]:
        tried = seen.backends[one.backend].probe(one) if _can_be_tried(one) else ()
        named = {condition.type for condition in tried}
        return (*tried, *(condition for condition in one.conditions if condition.type not in named))

    if not any(map(_can_be_tried, resources)):
        return {(one.backend, one.id): one.conditions for one in resources}
    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="probe") as pool:
        found = pool.map(conditions, resources)
        return {(one.backend, one.id): result for one, result in zip(resources, found, strict=True)}


def _can_be_tried(one: Observed) -> bool:
    return one.owned and one.id.kind in GUESTS and one.power is Power.RUNNING
