"""LOAD and VALIDATE in one go: paths → documents that are right, from the cache where nothing has changed."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from reconciler.manifest import Document, Source, parse_source, read_sources
from reconciler.problems import ManifestError, Problem
from reconciler.validation.checks import check_each, check_environments, is_right
from reconciler.validation.parsed import Parsed
from reconciler.validation.together import check_set

if TYPE_CHECKING:
    from reconciler.validation.cache import Answers, Cache

WORTHWHILE = 200
"""Fewer files are parsed sooner than a cache is imported, read and written."""
_EACH, _TOGETHER = "each is right", "right together"


class Loaded(Sequence[Document]):
    """Documents that are right, made only when somebody looks at them.

    files:  every file that was read, as people are shown it
    cached: whether all of it was known to be right already
    sound:  whether each document is right by itself; False only from ``load_parts``
    """

    def __init__(
        self,
        sources: Sequence[Source],
        make: Callable[[], list[Document]],
        answers: Answers | None = None,
        digest: str | None = None,
        cached: bool = False,
        sound: bool = True,
    ) -> None:
        self.sound = sound
        self.files = tuple(source.file for source in sources)
        self.cached = cached
        self._sources = sources
        self._make = make
        self._answers = answers
        self._digest = digest
        self._documents: tuple[Document, ...] | None = None

    @property
    def digest(self) -> str:
        """Of all names and contents; the same as long as nothing has changed."""
        if self._digest is None:
            from reconciler.validation.cache import digest_of

            self._digest = digest_of(self._sources)
        return self._digest

    @property
    def documents(self) -> tuple[Document, ...]:
        """All of them, in the order of the files."""
        if self._documents is None:
            with _uncollected():
                self._documents = tuple(self._make())
        return self._documents

    def recall(self, question: str) -> Any | None:
        """An answer remembered about these very files; None when there is none (or too few files to keep any)."""
        return self._answers.recall(self.digest, question) if self._answers is not None else None

    def remember(self, question: str, answer: Any) -> None:
        """Keep an answer (JSON, not None) that follows from these files, the question and our own code alone."""
        if self._answers is not None:
            self._answers.remember(self.digest, question, answer)

    def keep_in(self, parsed: Parsed) -> None:
        """For the next reading, in this process."""
        by_file: dict[str, list[Document]] = {file: [] for file in self.files}
        for one in self.documents:
            by_file[one.file].append(one)
        for source in self._sources:
            if parsed.recall(source.file, source.data) is None:
                parsed.keep(source.file, source.data, by_file[source.file])
        if self.sound:
            parsed.found_right(self.documents)

    @overload
    def __getitem__(self, index: int) -> Document: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...

    def __getitem__(self, index: int | slice) -> Document | Sequence[Document]:
        return self.documents[index]

    def __len__(self) -> int:
        return len(self.documents)


def load(paths: Sequence[str], stdin: bytes | None = None) -> Loaded:
    """The documents behind the paths, each right by itself. Raises ManifestError with every problem of all files."""
    return _load(paths, stdin, together=False)


def load_parts(
    paths: Sequence[str], stdin: bytes | None = None, patched: bool = False, parsed: Parsed | None = None
) -> Loaded:
    """The documents as they are written, for a composition that may make them right (see ``Loaded.sound``).

    Raises ManifestError with every problem of the text itself, and of Environments: those are right by themselves.
    patched: by the Environment that lists them; what is wrong with the others is told along with those problems else.
    parsed: what was read before; files that are the same by now are not parsed again, and the others are kept in it
    """
    loaded = _load(paths, stdin, together=False, parts=True, patched=patched, parsed=parsed)
    if parsed is not None:
        loaded.keep_in(parsed)
    return loaded


def load_manifests(paths: Sequence[str], stdin: bytes | None = None) -> Loaded:
    """The same, and right together: no name twice, and no two that claim the same."""
    return _load(paths, stdin, together=True)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing here makes cycles, and looking for them among 10,000 documents costs a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_uncollected()
def _load(
    paths: Sequence[str],
    stdin: bytes | None,
    together: bool,
    parts: bool = False,
    patched: bool = False,
    parsed: Parsed | None = None,
) -> Loaded:
    sources, problems = read_sources(paths, stdin)
    if not problems and _fresh(sources, parsed) >= WORTHWHILE:
        return _load_many(paths, sources, together, parts, patched)
    documents, wrong, _, sound = _read_all(sources, None, parts, parsed)
    problems += [*wrong, *(check_set(documents) if together else ())]
    _refuse(problems, documents if parts and not patched else (), parsed)
    return Loaded(sources, lambda: documents, sound=sound)


def _fresh(sources: Sequence[Source], parsed: Parsed | None) -> int:
    """How many of them were not read before, or are others by now."""
    if parsed is None or not parsed.files:
        return len(sources)
    return sum(1 for one in sources if parsed.recall(one.file, one.data) is None)


def _load_many(paths: Sequence[str], sources: Sequence[Source], together: bool, parts: bool, patched: bool) -> Loaded:
    """What is right is remembered. Imports here: a few files do not pay for it."""
    from reconciler.validation.cache import Answers, Cache, digest_of

    digest, question, answers = digest_of(sources), _TOGETHER if together else _EACH, Answers.of(paths)
    if answers.recall(digest, question):
        return Loaded(sources, lambda: _known(paths, sources), answers, digest, cached=True)
    cache = Cache.of(paths)
    documents, wrong, fresh, sound = _read_all(sources, cache, parts)
    _refuse([*wrong, *(check_set(documents) if together else ())], documents if parts and not patched else ())
    if sound:
        if fresh:
            cache.keep(sources, documents)
        answers.remember(digest, question, True)
    return Loaded(sources, lambda: documents, answers, digest, cached=not fresh, sound=sound)


def _refuse(problems: Sequence[Problem], others: Sequence[Document], parsed: Parsed | None = None) -> None:
    """others: documents that nobody will patch, and that will not be looked at any more, as there are problems."""
    if not problems:
        return
    files = {problem.mark.file for problem in problems if problem.mark is not None}
    left = [one for one in others if one.data.get("kind") != "Environment" and one.file not in files]
    asked = [one for one in left if parsed is None or not parsed.is_right(one)]
    raise ManifestError([*problems, *check_each(asked)[1]])


def _read_all(
    sources: Sequence[Source], cache: Cache | None, parts: bool, parsed: Parsed | None = None
) -> tuple[list[Document], list[Problem], bool, bool]:
    """Documents that are right (as parts: all but wrong Environments), the others' problems, whether any was parsed,
    and whether all are right."""
    documents: list[Document] = []
    problems: list[Problem] = []
    fresh, sound = False, True
    every = cache.documents(sources) if cache is not None else (None for _ in sources)
    for source, cached in zip(sources, every, strict=True):
        known = cached if parsed is None else parsed.recall(source.file, source.data)
        if known is not None:
            sound = sound and (parsed is None or all(map(parsed.is_right, known)))
            documents += known
            continue
        fresh = True
        found, wrong = parse_source(source)
        found, refused = check_environments(found) if parts else check_each(found)
        problems += wrong + refused
        sound = sound and (not parts or all(map(is_right, found)))
        documents += found
    return documents, problems, fresh, sound


def _known(paths: Sequence[str], sources: Sequence[Source]) -> list[Document]:
    """The documents of sources that are known; whatever is missing all the same is parsed again."""
    from reconciler.validation.cache import Cache

    every = zip(sources, Cache.of(paths).documents(sources), strict=True)
    return [one for source, known in every for one in known or parse_source(source)[0]]
