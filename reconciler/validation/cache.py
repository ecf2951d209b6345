"""VALIDATE, second time: what was found right once, known by its contents, so that nothing unchanged is parsed again.

Two files for each list of paths: the documents of every file that was right by itself, and answers about the whole set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.manifest import Document, Source
from reconciler.validation import kept

_MAX_SETS = 8

Json = Any


@dataclass(slots=True)
class Answers:
    """What is known of whole sets of files. by_digest: set → question → answer, the newest set last."""

    name: str
    by_digest: dict[str, dict[str, Json]]

    @classmethod
    def of(cls, paths: Sequence[str]) -> Answers:
        """Those about sets that these paths led to."""
        name = f"answers-{_name(paths)}"
        body = kept.read(name)
        return cls(name, json.loads(body) if body is not None else {})

    def recall(self, digest: str, question: str) -> Json | None:
        """The answer, if this very set was asked this very question."""
        return self.by_digest.get(digest, {}).get(question)

    def remember(self, digest: str, question: str, answer: Json) -> None:
        """Keep an answer (not None) that follows from the set and the question alone."""
        known = self.by_digest.pop(digest, {})
        self.by_digest[digest] = {**known, question: answer}
        newest = list(self.by_digest)[-_MAX_SETS:]
        self.by_digest = {one: self.by_digest[one] for one in newest}
        kept.write(self.name, json.dumps(self.by_digest, separators=(",", ":")).encode())


@dataclass(slots=True)
class Cache:
    """Documents by content. index: a content's sha256 → where its documents are in data."""

    name: str
    index: Mapping[str, Sequence[int]] = field(default_factory=dict)
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    @classmethod
    def of(cls, paths: Sequence[str]) -> Cache:
        """What was right of the files that these paths led to."""
        name = f"documents-{_name(paths)}"
        body = kept.read(name)
        if body is None:
            return cls(name)
        end = body.index(b"\n")
        return cls(name, json.loads(body[:end]), memoryview(body)[end + 1 :])

    def documents(self, sources: Sequence[Source]) -> Iterator[list[Document] | None]:
        """Of each file that was right when last seen its documents, else None. All are read in one go, so that names of
        fields are in memory once, and not once for each file."""
        places = [self.index.get(hashlib.sha256(source.data).hexdigest()) for source in sources]
        chunks = [bytes(self.data[place[0] : place[0] + place[1]]) for place in places if place is not None]
        found = iter(json.loads(b"[" + b",".join(chunks) + b"]"))
        for source, place in zip(sources, places, strict=True):
            known = None if place is None else next(found)
            yield None if known is None else [_document(source, index, one) for index, one in enumerate(known)]

    def keep(self, sources: Sequence[Source], documents: Iterable[Document]) -> None:
        """Remember that all of these are right by themselves, and nothing else."""
        by_file: dict[str, list[Document]] = {source.file: [] for source in sources}
        for document in documents:
            by_file[document.file].append(document)
        index, chunks, offset = {}, [], 0
        for source in sources:
            chunk = json.dumps([_entry(one) for one in by_file[source.file]], separators=(",", ":")).encode()
            index[hashlib.sha256(source.data).hexdigest()] = (offset, len(chunk))
            chunks.append(chunk)
            offset += len(chunk)
        kept.write(self.name, json.dumps(index, separators=(",", ":")).encode() + b"\n" + b"".join(chunks))


def digest_of(sources: Sequence[Source]) -> str:
    """Of names and contents, in their order, as seen from the working folder."""
    digest = hashlib.sha256(os.getcwdb())
    for source in sources:
        digest.update(f"\0{source.file}\0{len(source.data)}\0".encode(errors="surrogateescape"))
        digest.update(source.data)
    return digest.hexdigest()


def _name(paths: Sequence[str]) -> str:
    joined = "\0".join(os.path.abspath(path) for path in paths)
    return hashlib.sha256(joined.encode(errors="replace")).hexdigest()[:24]


def _document(source: Source, index: int, entry: Sequence[Any]) -> Document:
    line, column, floats, data = entry
    return Document(source.file, index, line, column, data, floats, source.data)


def _entry(document: Document) -> tuple[int, int, bool, Mapping[str, Any]]:
    return document.line, document.column, document.floats, document.data
