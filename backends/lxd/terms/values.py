"""Single values: LXD's text ↔ ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.model import Path
from reconciler.quantities import human_size
from reconciler.quantities import size as parse_size


def read_bool(text: str) -> bool:
    """LXD takes several words for true."""
    return text.lower() in ("true", "1", "yes", "on")


def write_bool(value: Any) -> str:
    return "true" if value else "false"


def read_size(text: str) -> int | str:
    """Bytes; what is not a plain size (``50%``) stays as it is."""
    try:
        return parse_size(text)
    except ValueError:
        return text


def write_size(value: Any) -> str:
    """LXD wants a unit: ``512MiB``, else bytes as ``1000B``."""
    if isinstance(value, str):
        return value
    text = human_size(value)
    return f"{text}B" if text.isdigit() else text


def read_count(text: str) -> int | str:
    """A number of CPUs, or a set of them (``0-3``)."""
    return int(text) if text.isdigit() else text


def at(spec: Mapping[str, Any], path: Path) -> Any:
    """The value at that path, None when there is none."""
    value: Any = spec
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def put(spec: dict[str, Any], path: Path, value: Any) -> None:
    """Set the value at that path, making the mappings on the way."""
    for part in path[:-1]:
        spec = spec.setdefault(part, {})
    spec[path[-1]] = value
