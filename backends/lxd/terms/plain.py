"""Profile, StoragePool, Project and Volume: LXD's own, nearly as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.backends.lxd.marks import PREFIX
from reconciler.backends.lxd.terms.values import read_size, write_size
from reconciler.model import Change, Spec

SEEN = frozenset({"config", "devices", "description", "driver", "pool", "size"})


def profile_spec(raw: Mapping[str, Any], applied: Spec | None = None) -> dict[str, Any]:
    """A profile in resolved terms."""
    spec = _base(raw, applied)
    spec["devices"] = {name: dict(device) for name, device in (raw["devices"] or {}).items()}
    return spec


def pool_spec(raw: Mapping[str, Any], applied: Spec | None = None) -> dict[str, Any]:
    """A storage pool in resolved terms; its ``source`` shows where LXD put it when nobody said."""
    spec = _base(raw, applied)
    spec["driver"] = raw["driver"]
    source = spec["config"].get("source")
    initial = raw["config"].get("volatile.initial_source")
    wanted = (applied or {}).get("source")
    spec["source"] = wanted if wanted is not None and wanted == initial else source
    return {key: value for key, value in spec.items() if value is not None}


def project_spec(raw: Mapping[str, Any], applied: Spec | None = None) -> dict[str, Any]:
    """A project in resolved terms."""
    return _base(raw, applied)


def volume_spec(raw: Mapping[str, Any], applied: Spec | None = None) -> dict[str, Any]:
    """A custom volume in resolved terms; ``raw["pool"]`` says in which pool it was found."""
    spec = _base(raw, applied)
    spec["pool"] = raw["pool"]
    if size := (raw["config"] or {}).get("size"):
        spec["size"] = read_size(size)
    return spec


def volume_config(spec: Spec) -> dict[str, str]:
    """The LXD config that a Volume's spec states."""
    config = dict(spec.get("config") or {})
    if spec.get("size") is not None:
        config["size"] = write_size(spec["size"])
    return config


def pool_config(spec: Spec) -> dict[str, str]:
    """The LXD config that a StoragePool's spec states."""
    config = dict(spec.get("config") or {})
    if spec.get("source") is not None:
        config["source"] = str(spec["source"])
    return config


def keys_touched(changes: Iterable[Change]) -> set[str]:
    """The LXD config keys that these changes concern."""
    keys: set[str] = set()
    for change in changes:
        if change.path[0] == "config":
            keys.update(change.path[1:2])
        elif change.path[0] in ("size", "source"):
            keys.add(change.path[0])
    return keys


def _base(raw: Mapping[str, Any], applied: Spec | None) -> dict[str, Any]:
    spec: dict[str, Any] = {key: value for key, value in (applied or {}).items() if key not in SEEN}
    spec["config"] = {
        key: value for key, value in (raw["config"] or {}).items() if not key.startswith(("volatile.", PREFIX))
    }
    if "description" in raw:
        spec["description"] = raw["description"]
    return spec
