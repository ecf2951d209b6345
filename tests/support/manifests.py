"""Short ways to write manifests in tests, and to see what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import dedent, indent

from reconciler import manifest, validation
from reconciler.manifest import Document
from reconciler.problems import ManifestError, Problem


def written(kind: str, spec: str = "", name: str = "web", metadata: str = "") -> str:
    """One manifest; ``spec`` begins at line 6, indented by two."""
    head = f"apiVersion: reconciler/v1\nkind: {kind}\nmetadata:\n  name: {name}{metadata}\nspec:"
    body = indent(dedent(spec).strip("\n"), "  ")
    return f"{head}\n{body}\n" if body else f"{head} {{}}\n"


def problems(text: str | bytes, file: str = "web.yaml") -> list[Problem]:
    """Everything that is said of the text, by LOAD or by VALIDATE; each with a place and a hint."""
    try:
        found = validation.validate(manifest.parse(text, file))
    except ManifestError as error:
        found = list(error.problems)
    assert all(one.mark and one.hint and one.summary for one in found), found
    return found


def said(text: str | bytes) -> list[str]:
    """``line:column: summary`` of every problem."""
    return [f"{one.mark.line}:{one.mark.column}: {one.summary}" if one.mark else one.summary for one in problems(text)]


def documents(*texts: str) -> Sequence[Document]:
    """The documents of several files, ``0.yaml`` and so on."""
    return [one for number, text in enumerate(texts) for one in manifest.parse(text, f"{number}.yaml")]
