"""APPLY for Network, when its subnet moves under containers with static addresses: their cards step aside meanwhile.

LXD refuses every later change of a container whose address lies outside of its network, and leaves its card half
detached. So: card off, network, card on again with the address that its manifest now wants. That is done only to
containers of ours that are declared so; anybody else's address makes the network stay where it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.marks import read_mark
from reconciler.backends.lxd.terms.networks import AUTOMATIC
from reconciler.model import ResourceId
from reconciler.problems import BackendError, Problem, Refused

SUBNETS = ("ipv4.address", "ipv6.address")

Device = Mapping[str, str]
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Card:
    """One card in the way. wanted: how its container's manifest wants it; None when it shall have none."""

    container: str
    name: str
    device: Device
    wanted: Device | None


def aside(task: Task, before: Mapping[str, str], after: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
    """While the network goes from one config to another. Raises Refused, with nothing touched, unless all are ours."""
    moved = {key: after.get(key, "") for key in SUBNETS if after.get(key, "") not in (before.get(key, ""), AUTOMATIC)}
    cards: list[_Card] = []
    strange: list[str] = []
    if moved:
        for instance in task.client.get("instances", within=task.deadline, recursion="1").metadata:
            for name, device in instance["expanded_devices"].items():
                out = [device[key] for key, subnet in moved.items() if _outside(task, device, key, subnet)]
                if out and (card := _ours(task, instance, name, device, moved)) is not None:
                    cards.append(card)
                elif out:
                    strange.append(f"{instance['name']} ({', '.join(out)})")
    if strange:
        raise Refused(
            Problem(
                f"these containers have a static address outside of {', '.join(moved.values())}: "
                f"{', '.join(sorted(strange))}",
                subject=str(task.step.id),
                hint="give them an address inside of it, or take the address out of their NICs",
            )
        )
    return _off_and_on(task, cards)


@contextlib.contextmanager
def _off_and_on(task: Task, cards: list[_Card]) -> Iterator[None]:
    for card in cards:
        task.tell(f"unplugging {card.name} of {card.container}")
        _plug(task, card, None)
    try:
        yield
    except BaseException:
        for card in cards:
            with contextlib.suppress(BackendError):  # its own next pass plugs in what is missing
                _plug(task, card, card.device)
        raise
    for card in cards:
        if card.wanted is not None:
            task.tell(f"plugging in {card.name} of {card.container}")
            _plug(task, card, card.wanted)


def _plug(task: Task, card: _Card, device: Device | None) -> None:
    reply = task.client.get("instances", card.container, within=task.deadline)
    raw = reply.metadata
    body = {key: raw[key] for key in ("architecture", "config", "ephemeral", "profiles", "description")}
    body["devices"] = {name: one for name, one in raw["devices"].items() if name != card.name}
    if device is not None:
        body["devices"][card.name] = dict(device)
    task.client.put(("instances", card.container), body, task.deadline, etag=reply.etag)


def _ours(task: Task, instance: Raw, name: str, device: Device, moved: Mapping[str, str]) -> _Card | None:
    """The card, when its container is ours, declared, and wants it where the network is going."""
    id = ResourceId("Container", instance["name"])
    mark = read_mark(instance["config"], str(id))
    users = task.desired.users if task.desired else {}
    if mark is None or mark.environment != task.settings.environment or id not in users:
        return None
    if (instance.get("devices") or {}).get(name) != device:
        return None  # it comes from a profile
    wanted: Device | None = (users[id].get("devices") or {}).get(name)
    if wanted is None:
        return _Card(id.name, name, device, None)
    if wanted.get("network") != task.name or any(_outside(task, wanted, key, moved[key]) for key in moved):
        return None
    return _Card(id.name, name, device, wanted)


def _outside(task: Task, device: Device, key: str, subnet: str) -> bool:
    address = device.get(key)
    if device.get("network") != task.name or address in (None, "none"):
        return False
    try:
        return ipaddress.ip_address(address) not in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return True
