"""Container: LXD's instance ↔ our resolved spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.backends.lxd.marks import PREFIX
from reconciler.backends.lxd.terms.values import at, put, read_bool, read_count, read_size, write_bool, write_size
from reconciler.model import Change, Path, Power, Spec


@dataclass(frozen=True, slots=True)
class Field:
    """One field of ours that is one config key of LXD's. default: what an absent key means, None for nothing."""

    path: Path
    key: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    default: Any = None


FIELDS = (
    Field(("cpus", "count"), "limits.cpu", read_count, str),
    Field(("memory", "size"), "limits.memory", read_size, write_size),
    Field(("nesting",), "security.nesting", read_bool, write_bool, default=False),
    Field(("privileged",), "security.privileged", read_bool, write_bool, default=False),
    Field(("cloudInit", "userData"), "cloud-init.user-data", str, str),
    Field(("cloudInit", "metaData"), "user.meta-data", str, str),
    Field(("cloudInit", "networkConfig"), "cloud-init.network-config", str, str),
)

# Older ways to say the same: read when the new key is not set, never written.
_LEGACY = {"cloud-init.user-data": "user.user-data", "cloud-init.network-config": "user.network-config"}

# What LXD writes itself, and ours; everything else in an instance's config was said by somebody.
_NOT_CONFIG = ("volatile.", "image.", PREFIX)

# What can be seen on the object. The rest of a spec (files, run, ready …) has no counterpart in LXD:
# it is seen as what our last apply recorded.
SEEN = frozenset({"power", "image", "nesting", "privileged", "cloudInit", "config", "devices", "profiles", "ephemeral"})

SHARE = "share-"
"""What the device of a Share is called, before its name."""

_POWER = {
    "Running": Power.RUNNING,
    "Ready": Power.RUNNING,
    "Stopped": Power.STOPPED,
    "Stopping": Power.RUNNING,
    "Starting": Power.STOPPED,
    "Frozen": Power.PAUSED,
    "Error": Power.ERROR,
}


def power_of(status: str) -> Power:
    """LXD's status as ours; one that we do not know is an error to look at."""
    return _POWER.get(status, Power.ERROR)


def is_up(instance: Mapping[str, Any]) -> bool:
    """Whether there is somebody in it, paused or not."""
    return power_of(instance["status"]) in (Power.RUNNING, Power.PAUSED)


def strangers(instance: Mapping[str, Any]) -> list[str]:
    """The names of its shares whose files seem to belong to nobody, because their owners are not mapped."""
    config = instance.get("expanded_config") or {}
    if read_bool(config.get("security.privileged", "")) or config.get("raw.idmap"):
        return []  # all of them are the host's own, or those that somebody chose
    devices: Mapping[str, Mapping[str, str]] = instance["devices"] or {}
    return sorted(
        name
        for name, one in devices.items()
        if name.startswith(SHARE) and one.get("type") == "disk" and not read_bool(one.get("shift", ""))
    )


def spec_of(instance: Mapping[str, Any], applied: Spec | None = None) -> dict[str, Any]:
    """The instance in resolved terms. Only what is set on the object itself: a profile's values are not its own."""
    spec: dict[str, Any] = {key: value for key, value in (applied or {}).items() if key not in SEEN}
    config: Mapping[str, str] = instance["config"]
    spec["power"] = power_of(instance["status"]).value
    spec["profiles"] = list(instance["profiles"] or ())
    spec["ephemeral"] = bool(instance["ephemeral"])
    spec["config"] = {key: value for key, value in config.items() if not key.startswith(_NOT_CONFIG)}
    spec["devices"] = {name: dict(device) for name, device in (instance["devices"] or {}).items()}
    _read_fields(spec, config, instance.get("expanded_config") or config)
    return spec


def _read_fields(spec: dict[str, Any], config: Mapping[str, str], expanded: Mapping[str, str]) -> None:
    for part in ("cpus", "memory"):
        if part in spec:  # what is recorded there (max) stays, what can be seen is looked at
            spec[part] = {key: value for key, value in spec[part].items() if key == "max"}
    for field in FIELDS:
        text = config.get(field.key, config.get(_LEGACY.get(field.key, field.key)))
        if text is not None:
            put(spec, field.path, field.read(text))
        elif field.default is not None and field.key not in expanded:
            put(spec, field.path, field.default)


UNSAID = {"boot.autostart": "false"}
"""What is written where nothing is said: left open, LXD starts at its host's boot whatever ran when that went down."""


def config_of(spec: Spec) -> dict[str, str]:
    """The LXD config that the spec states, and what must not be left open."""
    return UNSAID | stated(spec, FIELDS)


def stated(spec: Spec, fields: Iterable[Field]) -> dict[str, str]:
    """The raw ``config`` of any kind, with the fields that stand for keys of LXD's written into it."""
    config = dict(spec.get("config") or {})
    for field in fields:
        value = at(spec, field.path)
        if value is not None:
            config[field.key] = field.write(value)
    return config


def keys_touched(changes: Iterable[Change]) -> set[str]:
    """The LXD config keys that these changes concern."""
    keys: set[str] = set()
    for change in changes:
        if change.path[0] == "config":
            keys.update(change.path[1:2])
            continue
        for field in FIELDS:
            shared = min(len(field.path), len(change.path))
            if field.path[:shared] == change.path[:shared]:
                keys.add(field.key)
                keys.update({_LEGACY[field.key]} if field.key in _LEGACY else ())
    return keys


def devices_touched(changes: Iterable[Change]) -> set[str]:
    """The names of the devices that these changes concern."""
    return {change.path[1] for change in changes if change.path[0] == "devices" and len(change.path) > 1}
