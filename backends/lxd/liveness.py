"""PLAN's data, the part that a newer LXD brings itself: what its metadata says of keys that our table does not know.

Our table wins wherever it has a rule: it was tested, and "live update" in LXD's words only means that LXD accepts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.effects import CONTAINER, EACH_NEXT_START, TABLE
from reconciler.backends.lxd.server import server
from reconciler.effects import Rule, Table, find_rule
from reconciler.model import Effect

EXTENSION = "metadata_configuration"
"""LXD has it since 5.15; 5.0 has not."""

_ANSWERS = {
    "yes": Rule(Effect.LIVE, "LXD's own metadata says: live"),
    "container": Rule(Effect.LIVE, "LXD's own metadata says: live for containers"),
    "no": Rule(Effect.RESTART, "LXD's own metadata says: at the next start"),
}
_VIRTUAL_MACHINE = Rule(Effect.IMPOSSIBLE, "LXD's own metadata says: for virtual machines")
_PLACEHOLDER = "KEYNAME"


def table(client: Client, within: Deadline) -> Table:
    """Our table, and what that LXD says of further keys. Raises BackendError when it does not answer."""
    if EXTENSION not in server(client, within)["api_extensions"]:
        return TABLE
    return with_metadata(client.get("metadata", "configuration", within=within).metadata)


def with_metadata(metadata: Mapping[str, Any]) -> Table:
    """Our table, and the keys besides that ``GET /1.0/metadata/configuration`` tells of."""
    further = dict(_further(metadata))
    if not further:
        return TABLE
    profiles = {key: EACH_NEXT_START if rule.effect is Effect.RESTART else rule for key, rule in further.items()}
    return {
        **TABLE,
        "Container": {**further, **CONTAINER},
        "Profile": {**profiles, **TABLE["Profile"]},
    }


def _further(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Rule]]:
    """Field pattern → rule, for each key of instances that no pattern of ours matches."""
    for section, about in (metadata.get("configs") or {}).get("instance", {}).items():
        if section == "volatile":
            continue  # LXD writes these itself
        for entry in about.get("keys") or ():
            for name, said in entry.items():
                pattern = name.replace(_PLACEHOLDER, "*")
                rule = _rule(said)
                if rule is not None and find_rule(("config", pattern.replace("*", "x")), CONTAINER) is None:
                    yield f"config.<{pattern}>", rule


def _rule(said: Mapping[str, Any]) -> Rule | None:
    """None when LXD does not say it in words that we know: the key stays unknown, and is held."""
    if str(said.get("condition") or "").lower() == "virtual machine":
        return _VIRTUAL_MACHINE
    return _ANSWERS.get(str(said.get("liveupdate") or "").lower())
