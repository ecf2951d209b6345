"""VIEW: a field's value as people read it, and never a secret: cloud-init and the like show as a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.model import Json, Path
from reconciler.quantities import human_size
from reconciler.view.text import clean

_SENSITIVE_KEYS = (
    "cloud-init.",
    "user.user-data",
    "user.vendor-data",
    "user.network-config",
    "user.meta-data",
    "environment.",
)
_SECRET_WORDS = ("password", "passwd", "secret", "token", "credential", "private")
_LONGEST = 100


def is_sensitive(path: Path) -> bool:
    """Whether the value at this field may hold secrets: it is then shown as a digest only."""
    if path[:1] == ("cloudInit",):
        return True
    if path[:1] == ("config",) and len(path) > 1 and path[1].startswith(_SENSITIVE_KEYS):
        return True
    return bool(path) and any(word in path[-1].lower() for word in _SECRET_WORDS)


def masked(path: Path, value: Json) -> Json:
    """The same value, every sensitive leaf replaced by its digest."""
    if isinstance(value, Mapping):
        return {key: masked((*path, str(key)), part) for key, part in value.items()}
    if value is None or not is_sensitive(path):
        return list(value) if isinstance(value, tuple) else value
    return digest(value)


def digest(value: Json) -> str:
    """``sha256:`` and the first 12 hex digits: enough to see that it changed."""
    data = value.encode() if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str).encode()
    return f"sha256:{hashlib.sha256(data).hexdigest()[:12]}"


def shown(path: Path, value: Json) -> str:
    """The value on one line: sizes in their unit, secrets as digests, nothing that moves a cursor."""
    value = masked(path, value)
    if isinstance(value, str):
        text = value if value.startswith("sha256:") else _quoted(value)
    elif isinstance(value, int) and not isinstance(value, bool) and _is_size(path):
        text = human_size(value)
    elif isinstance(value, Mapping | list):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = json.dumps(value, default=str)
    text = clean(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _quoted(value: str) -> str:
    """Words as they are; what could be misread (empty, blanks, controls) in quotes."""
    return value if value and value.isprintable() and " " not in value else json.dumps(value, ensure_ascii=False)


def _is_size(path: Path) -> bool:
    return path[-1:] == ("size",) or path in (("memory", "max"), ("memory",))


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.3s``, ``12s``, ``2m05s``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def leaves(spec: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Every field that has a value, as path and value; an empty mapping is a value of its own."""
    for key, value in spec.items():
        here = (*path, str(key))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, here)
        else:
            yield here, value
