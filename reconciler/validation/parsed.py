"""VALIDATE, between two readings: what was parsed, and found right by itself, while a watch has it in memory.

A file is known by what it is called and by what tells its contents: its bytes, or the id that Git gives them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from reconciler.manifest import Document


@dataclass(slots=True)
class Parsed:
    """files: name → what tells the contents, and the documents; right: those of them (by ``id``) that are right;
    asked: files that were asked for since the reading began."""

    files: dict[str, tuple[Hashable, tuple[Document, ...]]] = field(default_factory=dict)
    right: set[int] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)

    def recall(self, file: str, contents: Hashable) -> tuple[Document, ...] | None:
        """The very documents that the file came to when it was last read; None: it is another one by now."""
        self.asked.add(file)
        known = self.files.get(file)
        return known[1] if known is not None and known[0] == contents else None

    def keep(self, file: str, contents: Hashable, documents: Sequence[Document]) -> None:
        """This is what the file comes to, and no Environment in it is wrong."""
        self._drop(file)
        self.files[file] = (contents, tuple(documents))

    def is_right(self, document: Document) -> bool:
        """Whether it is one of ours, as it was written, and was found right by itself."""
        return id(document) in self.right

    def found_right(self, documents: Iterable[Document]) -> None:
        """These are right by themselves; of them those that are kept here need not be asked again."""
        for one in documents:
            known = self.files.get(one.file)
            if known is not None and one.index < len(known[1]) and known[1][one.index] is one:
                self.right.add(id(one))

    def end(self) -> None:
        """The reading came to a good end: what it did not ask for is not read any more."""
        asked, self.asked = self.asked, set()
        for file in self.files.keys() - asked:
            self._drop(file)

    def _drop(self, file: str) -> None:
        known = self.files.pop(file, None)
        if known is not None:
            self.right.difference_update(map(id, known[1]))
