"""COMPOSE: what a document says of itself, as far as it can be told before validation has looked at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconciler.manifest import Document

LoadPath = Callable[[str], Sequence[Document]]
"""Reads one file or folder (as it stands, or its environment.yaml) into documents; raises ManifestError."""


def is_environment(document: Document) -> bool:
    """Whether it says what belongs together, rather than what is wanted."""
    return bool(document.data.get("kind") == "Environment")


def spec_of(document: Document) -> Mapping[str, Any]:
    """Its spec; empty when it has none, or something else in its place."""
    spec = document.data.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def metadata_of(document: Document) -> Mapping[str, Any]:
    """The same of its metadata: nothing but Environments was looked at by validation yet."""
    metadata = document.data.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def subject_of(document: Document) -> str:
    """``Kind/name``, as far as it says so."""
    return f"{document.data.get('kind')}/{metadata_of(document).get('name')}"
