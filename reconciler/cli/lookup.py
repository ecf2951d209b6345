"""What get, describe, delete and the guest verbs share: look at every backend, find what somebody named."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reconciler import attachments
from reconciler.cli.session import ANY_ENVIRONMENT, opened, read, resource_id, settings, suggestion, unanswered
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
def look(arguments: argparse.Namespace) -> Iterator[Seen]:
    """Observe this machine's backends, and the Hosts that ``--manifests`` declare."""
    desired: Mapping[ResourceId, Desired] = read(arguments.manifests).desired if arguments.manifests else {}
    with opened(desired.values(), settings(arguments.environment or ANY_ENVIRONMENT), everything=True) as backends:
        yield Seen(backends, observe(backends))


def find(seen: Seen, name: str, environment: str | None) -> Observed:
    """The one resource of this ``Kind/name``, or the one guest of this bare name; else a UsageError with a way out."""
    matching = [one for one in seen.resources if _is_named(one, name) and environment in (None, one.environment)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        places = ", ".join(f"{one.id} on {one.backend}" for one in matching)
        raise UsageError(
            Problem(f"several are called so: {places}", subject=name, hint="say Kind/name, or --environment")
        )
    if seen.problems:
        raise UsageError([Problem("not found where we could look", subject=name), *seen.problems])
    known = [str(one.id) for one in seen.resources] + [one.id.name for one in seen.world if one.id.kind in GUESTS]
    raise UsageError(Problem("there is no such resource", subject=name, hint=suggestion(name, known)))


def _is_named(seen: Observed, name: str) -> bool:
    if "/" in name:
        return seen.id == resource_id(name)
    return seen.id.kind in GUESTS and seen.id.name == name


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
