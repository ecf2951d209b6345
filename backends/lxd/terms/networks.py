"""Network: LXD's managed bridge ↔ our resolved spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.backends.lxd.marks import PREFIX
from reconciler.backends.lxd.terms.containers import Field, stated
from reconciler.backends.lxd.terms.values import at, put, read_bool, write_bool
from reconciler.model import Change, Spec

FIELDS = (
    *(
        field
        for family in ("ipv4", "ipv6")
        for field in (
            Field((family, "address"), f"{family}.address", str, str),
            Field((family, "nat"), f"{family}.nat", read_bool, write_bool, default=False),
            Field((family, "dhcp"), f"{family}.dhcp", read_bool, write_bool, default=True),
        )
    ),
    Field(("dns", "domain"), "dns.domain", str, str, default="lxd"),
)

SEEN = frozenset({"type", "ipv4", "ipv6", "dns", "config", "managed"})
AUTOMATIC = "auto"


def spec_of(network: Mapping[str, Any], applied: Spec | None = None) -> dict[str, Any]:
    """The network in resolved terms."""
    spec: dict[str, Any] = {key: value for key, value in (applied or {}).items() if key not in SEEN}
    spec["type"] = network["type"]
    if not network.get("managed", True):
        spec["managed"] = False  # an interface of the host: it can be referred to, and never be ours
        return spec
    config = network["config"] or {}
    spec["config"] = {key: value for key, value in config.items() if not key.startswith(("volatile.", PREFIX))}
    for field in FIELDS:
        text = config.get(field.key)
        if text is not None:
            put(spec, field.path, field.read(text))
        elif field.default is not None:
            put(spec, field.path, field.default)
    _keep_automatic(spec, applied or {})
    return spec


def _keep_automatic(spec: dict[str, Any], applied: Spec) -> None:
    """``auto`` was asked for and LXD chose: what it chose is no drift."""
    for path in (("ipv4", "address"), ("ipv6", "address")):
        if at(applied, path) == AUTOMATIC and at(spec, path) not in (None, "none"):
            put(spec, path, AUTOMATIC)
    for key, value in (applied.get("config") or {}).items():
        if value == AUTOMATIC and key in spec["config"]:
            spec["config"][key] = AUTOMATIC


def config_of(spec: Spec) -> dict[str, str]:
    """The LXD config that the spec states."""
    return stated(spec, FIELDS)


def keys_touched(changes: Iterable[Change]) -> set[str]:
    """The LXD config keys that these changes concern."""
    keys: set[str] = set()
    for change in changes:
        if change.path[0] == "config":
            keys.update(change.path[1:2])
        keys.update(field.key for field in FIELDS if field.path[: len(change.path)] == change.path)
    return keys
