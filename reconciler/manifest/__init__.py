"""LOAD: YAML files → Documents that know their places. The only home of yaml.

``load`` reads and parses, no more; what a document says is looked at by validation. Nothing here knows kinds or fields.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from reconciler.manifest.reading import (
    ENVIRONMENT,
    MAX_BYTES,
    MAX_PAYLOAD,
    STDIN,
    Source,
    is_manifest,
    read_again,
    read_file,
    read_sources,
)
from reconciler.problems import ManifestError, Mark, Problem

__all__ = [
    "ENVIRONMENT",
    "MAX_BYTES",
    "MAX_PAYLOAD",
    "STDIN",
    "Document",
    "Source",
    "is_manifest",
    "load",
    "locate",
    "locate_all",
    "parse",
    "parse_source",
    "read_again",
    "read_payload",
    "read_remotes",
    "read_sources",
    "read_trusted",
]

MAX_PROBLEMS = 100
"""Of one file; nobody reads more."""

Path = tuple[str | int, ...]


class Origins(Protocol):
    """Where the parts of a composed document were written."""

    def trace(self, path: Path) -> tuple[Document, Path]:
        """The document as it was read, and the place in it, that the value at ``path`` comes from."""


class Given(Protocol):
    """A value that was filled in."""

    @property
    def by(self) -> Document:
        """Who gave it."""

    @property
    def place(self) -> Path:
        """And where in it."""


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest as it was written, or as patches left it. Nothing in ``data`` is ever changed: aliases share parts.

    file:   as people are shown it; ``-`` for standard input
    index:  which document of the file, from 0
    line, column: where it begins, from 1
    floats: whether a number with a fraction or exponent is anywhere in it
    source: the whole file, kept to find places in
    origins: of a patched one: where its parts were written; None: all of it here
    secrets: path of a text → what it is made of (see composition); ``data`` only says ``<secret NAME>`` there
    values:  path of a text → the values that were filled in there, by name, and where each was given
    """

    file: str
    index: int
    line: int
    column: int
    data: Mapping[str, Any]
    floats: bool = False
    source: bytes = field(default=b"", repr=False, compare=False)
    origins: Origins | None = field(default=None, repr=False, compare=False)
    secrets: Mapping[Path, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    values: Mapping[Path, Mapping[str, Given]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def mark(self) -> Mark:
        """Where it begins."""
        return Mark(self.file, self.line, self.column)


def load(paths: Sequence[str], stdin: bytes | None = None) -> tuple[Document, ...]:
    """Every document of the files, folders and ``-``. Raises ManifestError with every problem of all files.

    A folder stands for its environment.yaml, else for every manifest below it; a folder without one is a problem.
    """
    sources, problems = read_sources(paths, stdin)
    documents: list[Document] = []
    for source in sources:
        found, wrong = parse_source(source)
        documents += found
        problems += wrong
    if problems:
        raise ManifestError(problems)
    return tuple(documents)


def parse(text: str | bytes, file: str = STDIN) -> tuple[Document, ...]:
    """The documents of a text. Raises ManifestError with everything that is wrong with it."""
    documents, problems = parse_source(Source(file, text.encode() if isinstance(text, str) else text))
    if problems:
        raise ManifestError(problems)
    return tuple(documents)


def parse_source(source: Source) -> tuple[list[Document], list[Problem]]:
    """The documents of a file that are mappings, and everything that is wrong with it."""
    from reconciler.manifest.parsing import parse as parse_text
    from reconciler.manifest.wrongs import Wrong, decode

    try:
        trees, wrongs = parse_text(decode(source.data))
    except Wrong as wrong:
        return [], [wrong.problem(source.file)]
    problems = [wrong.problem(source.file) for wrong in wrongs]
    documents: list[Document] = []
    for index, tree in enumerate(trees):
        if isinstance(tree.data, dict):
            documents.append(Document(source.file, index, tree.line, tree.column, tree.data, tree.floats, source.data))
        else:
            problems.append(_not_a_mapping(Mark(source.file, tree.line, tree.column), tree.data))
    return documents, problems[:MAX_PROBLEMS]


def _not_a_mapping(mark: Mark, data: Any) -> Problem:
    if data is None:
        return Problem("an empty document", mark, hint='take the "---" away, or write a manifest behind it')
    got = {list: "a list", str: "a text", bool: "true or false"}.get(type(data), "a number")
    hint = "a manifest begins with apiVersion: reconciler/v1; several are separated by ---"
    return Problem(f"expected a mapping with apiVersion, kind and metadata, got {got}", mark, hint=hint)


def locate(document: Document, path: Iterable[str | int]) -> Mark:
    """Where the value at ``path`` stands (of a mapping or list: its field's name); else its nearest parent."""
    wanted = tuple(path)
    return locate_all(document, [wanted])[wanted]


def locate_all(document: Document, paths: Collection[Path], names: bool = False) -> dict[Path, Mark]:
    """The same for many paths in one go. names: point at the fields' names, never at their values."""
    if document.origins is not None:
        return _traced(document.origins, paths, names)
    marks = dict.fromkeys(paths, document.mark)
    asked = [path for path in marks if path]
    if not asked or not document.source:
        return marks
    from reconciler.manifest.places import find

    for path, place in find(document.source.decode("utf-8", "replace"), document.index, asked).items():
        spot = place.key if names and place.key else place.best
        marks[path] = Mark(document.file, *spot)
    return marks


def _traced(origins: Origins, paths: Collection[Path], names: bool) -> dict[Path, Mark]:
    """Each path in the document that it comes from; those of one document in one go."""
    asked: dict[int, tuple[Document, dict[Path, Path]]] = {}
    for path in paths:
        document, place = origins.trace(path)
        asked.setdefault(id(document), (document, {}))[1][path] = place
    marks: dict[Path, Mark] = {}
    for document, places in asked.values():
        found = locate_all(document, list(places.values()), names)
        marks |= {path: found[place] for path, place in places.items()}
    return marks


def read_payload(path: str, base: str, roots: Collection[str] = ()) -> bytes:
    """The contents for ``files: [{source}]``: at most 16 MiB. Raises ManifestError.

    The file must be below ``base`` (the manifest's folder), the caller's home (unless root) or one of ``roots``.
    """
    from reconciler.manifest.payload import read

    return read(path, base, roots)


def read_trusted(path: str) -> bytes | None:
    """A file that only root or the caller can have written, such as the policy; None when it is not there.

    Raises ManifestError when it cannot be trusted or read.
    """
    try:
        return read_file(path, MAX_BYTES)
    except FileNotFoundError:
        return None


def read_remotes(path: str | None = None) -> Mapping[str, Mapping[str, str]]:
    """The image servers that the user's LXD client knows: name → {server, protocol}."""
    from reconciler.manifest.remotes import Remotes

    return Remotes(path)
