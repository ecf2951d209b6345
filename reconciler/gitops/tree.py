"""GITOPS: the files of one commit, read as LOAD reads a folder: same names, same limits, nothing outside of it.

A file is called ``git:@/environments/laptop/web.yaml`` in every commit, so that what is the same in the next one need
not be read again; in what people are told, the commit's id stands in the place of ``@``. Symbolic links and submodules
are refused by name.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from reconciler import manifest, policy, preparation, validation
from reconciler.gitops.git import Failed, Git
from reconciler.manifest import MAX_BYTES, MAX_PAYLOAD, Document, Source
from reconciler.manifest.reading import ENDINGS, ENVIRONMENT
from reconciler.origin import Note, Origin
from reconciler.problems import ManifestError, Mark, Problem
from reconciler.resolution import Surroundings

ROOT = "git:@"
"""What the top of the repository is called."""
_MAX_FOLDERS = 64
_ODD = {"120000": "a symbolic link", "160000": "a submodule"}


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: str
    id: str
    size: int


@dataclass(slots=True)
class Tree:
    """One commit. below: folder → the names in it; contents: what was read already."""

    git: Git
    commit: str
    entries: dict[str, _Entry] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, git: Git, commit: str) -> Tree:
        """List it. Raises Failed."""
        tree = cls(git, commit, below={"": []})
        _, output = git.run("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", commit)
        for line in output.split(b"\0")[:-1]:
            about, _, raw = line.partition(b"\t")
            mode, _, id, size = about.decode().split()
            path = os.fsdecode(raw)
            tree.entries[path] = _Entry(mode, id, int(size) if size.isdigit() else 0)
            folder, _, name = path.rpartition("/")
            tree.below.setdefault(folder, []).append(name)
            if mode == "040000":
                tree.below.setdefault(path, [])
        return tree

    def told(self, problem: Problem) -> Problem:
        """The problem as people are told it: with the commit's id."""
        here, shown = f"{ROOT}/", f"git:{self.commit[:12]}/"
        texts = {key: getattr(problem, key) for key in ("summary", "subject", "detail", "hint")}
        named = {key: text and text.replace(here, shown) for key, text in texts.items()}
        mark = problem.mark
        if mark is not None and f"{mark.file}/".startswith(here):
            mark = replace(mark, file=f"{shown[:-1]}{mark.file[len(ROOT) :]}")
        return replace(problem, mark=mark, **named)

    def differing(self, other: Tree, files: Collection[str]) -> set[str]:
        """Those of these (absolute paths) that are others in the other commit, or not there."""
        return {one for one in files if self._entry(one) is None or self._entry(one) != other._entry(one)}

    def _entry(self, file: str) -> _Entry | None:
        inside = self._inside(file)
        return self.entries.get(inside) if inside is not None else None

    def load(self, path: str, parsed: validation.Parsed) -> Sequence[Document]:
        """The documents of a file or folder (its environment.yaml, else every manifest below), as they are written.

        Raises ManifestError with every problem of the texts, and of Environments. parsed: see ``load_parts``
        """
        inside = self._inside(path)
        if inside is None:
            raise ManifestError(Problem(f"{path}: leads out of the repository", hint="name what is in it"))
        problems: list[Problem] = []
        files = self._files(inside, problems)
        if not files and not problems:
            hint = "an empty folder never means that nothing is wanted; manifests end in .yaml or .yml"
            problems.append(Problem("there is no manifest in this folder", self._mark(inside), hint=hint))
        documents: list[Document] = []
        known = [parsed.recall(f"{ROOT}/{name}", self.entries[name].id) for name in files]
        fresh = [name for name, one in zip(files, known, strict=True) if one is None]
        contents = iter(self._read([self.entries[name] for name in fresh]))
        for name, one in zip(files, known, strict=True):
            documents += one if one is not None else self._parse(name, next(contents), parsed, problems)
        if problems:
            raise ManifestError(problems)
        return documents

    def _parse(self, name: str, data: bytes, parsed: validation.Parsed, problems: list[Problem]) -> Sequence[Document]:
        file = f"{ROOT}/{name}"
        found, wrong = manifest.parse_source(Source(file, data))
        sound, refused = validation.check_environments(found)
        problems += wrong + refused
        if not (wrong or refused):
            parsed.keep(file, self.entries[name].id, sound)
        return sound

    def read(self, path: str, base: str) -> bytes:
        """A file that manifests name, such as ``files: [{source}]``. Raises ManifestError without a place."""
        inside = None if os.path.isabs(path) else self._inside(os.path.join(base, path))
        hint = "the path is taken from the manifest's folder, in the repository"
        if inside is None:
            raise ManifestError(Problem(f"source: {path}: leads out of the repository", hint=hint))
        entry = self.entries.get(inside)
        if entry is None or entry.mode == "040000":
            raise ManifestError(Problem(f"source: {path}: no such file at {self.commit[:12]}", hint=hint))
        if (odd := _ODD.get(entry.mode)) is not None:
            raise ManifestError(Problem(f"source: {path}: expected a regular file, got {odd}", hint=hint))
        if entry.size > MAX_PAYLOAD:
            summary = f"source: {path}: {entry.size} bytes are more than {MAX_PAYLOAD >> 20} MiB"
            raise ManifestError(Problem(summary, hint="put it into the image"))
        return self._read([entry])[0]

    def _inside(self, path: str) -> str | None:
        """The path in the repository; None for what leads out of it."""
        top, full = os.path.abspath(ROOT), os.path.abspath(path)
        if full == top:
            return ""
        return full[len(top) + 1 :] if full.startswith(f"{top}/") else None

    def _files(self, path: str, problems: list[Problem]) -> list[str]:
        """The manifests that a path stands for."""
        entry = self.entries.get(path)
        if path and entry is None:
            problems.append(Problem(f"{path}: there is no such file or folder at {self.commit[:12]}"))
        elif entry is not None and entry.mode != "040000":
            return self._sound([path], problems)
        else:
            return self._folder(path, problems)
        return []

    def _folder(self, top: str, problems: list[Problem]) -> list[str]:
        found: list[str] = []
        pending = [(top, 0)]
        while pending:
            folder, depth = pending.pop()
            if depth > _MAX_FOLDERS:
                problems.append(Problem(f"more than {_MAX_FOLDERS} folders deep", self._mark(folder)))
                continue
            names = sorted(name for name in self.below[folder] if name[0] != ".")
            paths = {name: posixpath.join(folder, name) for name in names}
            if ENVIRONMENT in paths:
                found += self._sound([paths[ENVIRONMENT]], problems)
                continue
            modes = {name: self.entries[path].mode for name, path in paths.items()}
            files = [paths[name] for name in names if modes[name] in _ODD or _is_manifest(name, modes[name])]
            found += self._sound(files, problems)
            pending += [(paths[name], depth + 1) for name in reversed(names) if modes[name] == "040000"]
        return found

    def _sound(self, paths: Sequence[str], problems: list[Problem]) -> list[str]:
        """Those that may be read."""
        sound = []
        for path in paths:
            entry = self.entries[path]
            if (odd := _ODD.get(entry.mode)) is not None:
                hint = "put the file itself into the repository"
                problems.append(Problem(f"expected a regular file, got {odd}", self._mark(path), hint=hint))
            elif not path.isprintable():
                problems.append(Problem("the file's name cannot be shown", self._mark(ascii(path)), hint="rename it"))
            elif entry.size > MAX_BYTES:
                summary = f"{entry.size} bytes are more than the {MAX_BYTES >> 20} MiB that a file may have"
                problems.append(Problem(summary, self._mark(path), hint="split it into several files"))
            else:
                sound.append(path)
        return sound

    def _read(self, entries: Sequence[_Entry]) -> list[bytes]:
        """Their contents, all that are not known yet with one call. Raises Failed."""
        missing = list(dict.fromkeys(one.id for one in entries if one.id not in self.contents))
        if missing:
            _, output = self.git.run("cat-file", "--batch", data="".join(f"{id}\n" for id in missing).encode())
            begin = 0
            for id in missing:
                end = output.find(b"\n", begin)
                words = output[begin:end].split()
                if len(words) != 3 or words[0] != id.encode() or words[1] != b"blob":
                    raise Failed(-1, f"git has no blob {id}")
                begin = end + 1 + int(words[2])
                self.contents[id] = output[end + 1 : begin]
                begin += 1
        return [self.contents[one.id] for one in entries]

    def _mark(self, path: str) -> Mark:
        return Mark(f"{ROOT}/{path}" if path else ROOT, 1, 1)


@dataclass(frozen=True, slots=True)
class AtCommit:
    """The manifests behind one path of it, as an Origin (see ``origin``)."""

    tree: Tree
    path: str

    def load(self, parsed: validation.Parsed) -> Sequence[Document]:
        return self.tree.load(self.path, parsed)

    def load_listed(self, path: str, parsed: validation.Parsed, note: Note) -> Sequence[Document]:
        return self.tree.load(path, parsed)

    def surroundings(self, rules: policy.Policy, asked: set[str]) -> Surroundings:
        return preparation.foreign_surroundings(self.tree.read, rules)

    def doubtful(self, before: Origin, files: Collection[str]) -> Collection[str]:
        return self.tree.differing(before.tree, files) if isinstance(before, AtCommit) else files


def _is_manifest(name: str, mode: str) -> bool:
    return mode != "040000" and name.lower().endswith(ENDINGS)
