"""APPLY: where a guest says that it is, passed on to its forwarder, which asks the network whether that is so."""

from __future__ import annotations

from contextlib import suppress

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.forwarding import keeper
from reconciler.backends.qemu.plugging import forwards
from reconciler.backends.qemu.records import Record
from reconciler.model import Json, Spec
from reconciler.problems import Interrupted, Refused, Unreachable

_AGENT = 1.0
"""Seconds for the agent of a guest that is up."""


def pass_on(folder: Folder, record: Record, spec: Spec) -> None:
    """Only a help, where the network is too wide to ask everybody: what fails here is left at that."""
    ways = forwards.ways(forwards.with_own(spec, record), record.birth, record.id)
    cards = {rule.mac for rule in ways.by_forwarder}
    if not cards or not spec.get("guestAgent", True):
        return
    with suppress(Unreachable, Interrupted, Refused), Agent(folder.agent, record.id, _AGENT) as agent:
        said = agent.execute("guest-network-get-interfaces")
        with agent.sense("guest-network-get-interfaces"):
            found = {card: _addresses(said, card) for card in cards}
        keeper.advise(folder, found)


def _addresses(said: Json, card: str) -> list[str]:
    mine = [one for one in said if str(one.get("hardware-address", "")).lower() == card]
    listed = [address for one in mine for address in one.get("ip-addresses", ())]
    return [str(one["ip-address"]) for one in listed if one.get("ip-address-type") == "ipv4"]
