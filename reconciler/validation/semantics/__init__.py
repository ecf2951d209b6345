"""VALIDATE: what the schemas cannot say of one document: contradictions, amounts that no machine has, odd paths.

Looks only at fields that their schema accepts, so each has its type; required ones may be missing. One function a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from reconciler import schema
from reconciler.manifest import Document
from reconciler.validation.findings import Finding, Notes, Path
from reconciler.validation.semantics import guests, images, infrastructure, storage

Spec = Mapping[str, Any]
Check = Callable[[Notes, Spec], None]

_BY_KIND: Mapping[str, Check] = {
    "Container": guests.container,
    "VirtualMachine": guests.machine,
    "Image": images.image,
    "Network": infrastructure.network,
    "Profile": infrastructure.raw,
    "StoragePool": infrastructure.raw,
    "Project": infrastructure.raw,
    "PortForward": infrastructure.port_forward,
    "Disk": storage.disk,
    "Volume": storage.volume,
    "Share": storage.share,
}
_KINDS = frozenset(schema.kinds())
_FREE_FORM = (("spec", "cloudInit"), ("spec", "patches"))


def findings(document: Document, refused: Collection[Finding] = ()) -> list[Finding]:
    """Everything that is wrong beyond what the schema refused."""
    notes, data = Notes(), document.data
    if document.floats:
        _floats(notes, data, {finding.path for finding in refused})
    if refused or notes.findings:
        data = _without(data, {finding.path[:2] for finding in (*refused, *notes.findings)})
    kind, metadata, spec = data.get("kind"), data.get("metadata") or {}, data.get("spec") or {}
    if not isinstance(kind, str) or kind not in _KINDS:
        return []  # without a kind that we know nothing can be said
    if "name" in metadata and metadata.get("renamedFrom") == metadata["name"]:
        notes.note(("metadata", "renamedFrom"), "is the name that it has", "take it out once the renaming is done")
    if "ignore" in spec:
        _ignore(notes, kind, spec["ignore"])
    if (check := _BY_KIND.get(kind)) is not None:
        check(notes, spec)
    return notes.findings


def _without(data: Mapping[str, Any], refused: Collection[Path]) -> dict[str, Any]:
    """The document without the fields (of metadata and spec) in which something was refused already."""
    kept: dict[str, Any] = {}
    for part, fields in data.items():
        if (part,) in refused and not isinstance(fields, dict):
            continue
        kept[part] = fields
        if isinstance(fields, dict):
            kept[part] = {name: value for name, value in fields.items() if (part, name) not in refused}
    return kept


def _ignore(notes: Notes, kind: str, paths: list[str]) -> None:
    """The first part of an ignored path is a field of spec."""
    known = schema.names(kind, ("spec",))
    for index, path in enumerate(paths):
        first = path.partition(".")[0]
        if first not in known:
            near = schema.near(first, known)
            hint = f'did you mean "{near}"?' if near else f"fields are: {', '.join(known)}"
            notes.note(("spec", "ignore", index), f'{kind} has no field "{first}"', hint)


def _floats(notes: Notes, data: Mapping[str, Any], refused: Collection[Path]) -> None:
    """1.0 is an integer to JSON Schema; to a person it is not, and as a text it would change its looks."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), data)]
    while pending:
        path, value = pending.pop()
        if path in _FREE_FORM or path in refused:
            continue
        if isinstance(value, float):
            notes.note(path, f"expected a whole number or a text, got {value}", "put it in quotes to make it a text")
        elif isinstance(value, dict):
            pending += [((*path, key), one) for key, one in value.items()]
        elif isinstance(value, list):
            pending += [((*path, index), one) for index, one in enumerate(value)]
