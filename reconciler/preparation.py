"""The first half of a pass, without any backend: manifests → load → compose → validate → resolve → policy → Wanted.

A room of its own, so that ``validate`` imports nothing of the second half.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

from reconciler import composition, manifest, policy, resolution, validation
from reconciler.desired import Desired, ResourceId
from reconciler.manifest import Document
from reconciler.problems import ManifestError, Problem


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the manifests come to. approve: what may happen unattended;
    drift: what watch mode does about somebody else's changes: heal | report;
    names: whether the names of guests are kept on this host;
    files: every local file that it hangs on (only from ``prepare_watched``)."""

    environment: str
    desired: Mapping[ResourceId, Desired]
    prune: bool = False
    approve: Mapping[str, bool] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    drift: str = "heal"
    names: bool = False


def prepare(paths: Sequence[str], stdin: bytes | None = None, secrets: bool = True) -> Wanted:
    """load → compose → validate → resolve → policy. Raises ManifestError with every problem; calls no backend.

    secrets: whether they are asked for; what holds one is not fit to be applied without.

    Each stage looks at all there is, so a person is told everything that can be told at once; a stage is only skipped
    when what it would say follows from problems that are told already.
    """
    around = surroundings()
    if not secrets:
        around = replace(around, secret=lambda _parts: ("", b""))
    return prepare_documents(validation.load_parts(paths, stdin), around)


def prepare_watched(paths: Sequence[str]) -> Wanted:
    """The same, and which files it was made from."""
    asked: set[str] = set()
    noted = noting(surroundings(), asked.add)
    documents = validation.load_parts(paths)
    watched = replace(noted, secret=asking(policy.load(), noted.read))
    wanted = prepare_documents(documents, watched, asked.update)
    marks = {want.mark.file for want in wanted.desired.values() if want.mark is not None}
    return replace(wanted, files=frozenset({*documents.files, *marks, *asked}))


def noting(around: resolution.Surroundings, note: Callable[[str], object]) -> resolution.Surroundings:
    """The same surroundings, and a note of every file that is asked for."""

    def read(path: str, base: str) -> bytes:
        note(os.path.join(base, path))
        return around.read(path, base)

    def stamp(path: str) -> str:
        note(path)
        return around.stamp(path)

    return replace(around, read=read, stamp=stamp)


def prepare_documents(
    documents: Sequence[Document],
    around: resolution.Surroundings,
    note: Callable[[Iterable[str]], None] = lambda _files: None,
    load: composition.LoadPath | None = None,
) -> Wanted:
    """The same from what ``validation.load_parts`` gave. Raises ManifestError with every problem.

    note: told which further files are read; load: reads them, None: from this machine's files
    """
    composed = compose(documents, note, load)
    desired = resolution.resolve(composed.documents, around)
    check_policy(desired, composed.documents)
    return Wanted(
        composed.environment,
        desired,
        composed.prune,
        composed.approve,
        drift=composed.drift,
        names=composed.names,
    )


def render(paths: Sequence[str], stdin: bytes | None = None) -> composition.Composition:
    """load → compose → validate, and no further: what the documents come to. Raises ManifestError."""
    return compose(validation.load_parts(paths, stdin))


def compose(
    documents: Sequence[Document],
    note: Callable[[Iterable[str]], None] = lambda _files: None,
    load: composition.LoadPath | None = None,
    parsed: validation.Parsed | None = None,
) -> composition.Composition:
    """Environments followed, patched and filled in, and everything that came of it validated.

    load: reads what Environments list; None: from this machine's files; parsed: what need not be validated, and gets
    what is right. Raises ManifestError with every problem.
    """
    right: set[int] = set()

    def known(loaded: Sequence[Document]) -> Sequence[Document]:
        if isinstance(loaded, validation.Loaded) and loaded.sound:
            right.update(map(id, loaded))
        return loaded

    def local(path: str) -> Sequence[Document]:
        loaded = validation.load_parts([path], patched=True)
        note(loaded.files)
        return known(loaded)

    def check(composed: Sequence[Document]) -> list[Problem]:
        asked = [one for one in composed if id(one) not in right and not (parsed and parsed.is_right(one))]
        sound, problems = validation.check_each(asked)
        if parsed is not None:
            parsed.found_right(sound)
        return problems

    composed = composition.compose(known(documents), load or local, check)
    if problems := validation.check_set(composed.documents):
        raise ManifestError(problems)
    return composed


def check_policy(desired: Mapping[ResourceId, Desired], documents: Sequence[Document] = ()) -> None:
    """Ask the administrator's file. Raises ManifestError with everything that it gives no leave for.

    Asked again when a saved plan is applied: the administrator may have changed their mind since.
    """
    if problems := policy.check(desired.values(), policy.load(documents), documents):
        raise ManifestError(problems)


def surroundings() -> resolution.Surroundings:
    """The local files and LXD remotes that manifests may point at."""
    rules = policy.load()  # folders that the administrator opened are open to ``files: [{source}]``, too
    read = partial(manifest.read_payload, roots=rules.roots)
    return resolution.Surroundings(read, _stamp, manifest.read_remotes(), _node, asking(rules, read))


def asking(
    rules: policy.Policy, read: Callable[[str, str], bytes], foreign: bool = False, dry: bool = False
) -> Callable[[composition.Template], tuple[str, bytes]]:
    """What secrets are asked of, begun when there is one; see ``secrets.Secrets``."""

    @cache
    def begun() -> Callable[[composition.Template], tuple[str, bytes]]:
        from reconciler.secrets import Secrets

        return Secrets(rules, read, foreign, dry)

    def ask(parts: composition.Template) -> tuple[str, bytes]:
        return begun()(parts)

    return ask


def foreign_surroundings(read: Callable[[str, str], bytes], rules: policy.Policy) -> resolution.Surroundings:
    """For manifests that do not lie on this machine. read: a file beside them; see ``Surroundings``."""
    ask = asking(rules, read, foreign=True)
    return resolution.Surroundings(read, _stamp, manifest.read_remotes(), _node, ask, on_disk=False)


def _stamp(path: str) -> str:
    about = os.stat(path)
    return f"{about.st_size}-{about.st_mtime_ns}"


def _node(path: str) -> str | None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    return "char" if stat.S_ISCHR(mode) else "block" if stat.S_ISBLK(mode) else None
