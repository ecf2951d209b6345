"""GITOPS: the files of one commit, read as LOAD reads a folder: same names, same limits, nothing outside of it.

A file is called ``git:3f2c9d1e4b7a/environments/laptop/web.yaml``. Symbolic links and submodules are refused by name.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler import manifest, validation
from reconciler.gitops.git import Failed, Git
from reconciler.manifest import MAX_BYTES, MAX_PAYLOAD, Document, Source
from reconciler.manifest.reading import ENDINGS, ENVIRONMENT
from reconciler.problems import ManifestError, Mark, Problem

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
            tree.below.setdefault(posixpath.dirname(path), []).append(posixpath.basename(path))
            if mode == "040000":
                tree.below.setdefault(path, [])
        return tree

    @property
    def root(self) -> str:
        """What the top of the repository is called."""
        return f"git:{self.commit[:12]}"

    def load(self, path: str) -> Sequence[Document]:
        """The documents of a file or folder (its environment.yaml, else every manifest below), as they are written.

        Raises ManifestError with every problem of the texts, and of Environments.
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
        for name, data in zip(files, self._read([self.entries[name] for name in files]), strict=True):
            found, wrong = manifest.parse_source(Source(f"{self.root}/{name}", data))
            found, refused = validation.check_environments(found)
            documents += found
            problems += wrong + refused
        if problems:
            raise ManifestError(problems)
        return documents

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
        top, full = os.path.abspath(self.root), os.path.abspath(path)
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
        return Mark(f"{self.root}/{path}" if path else self.root, 1, 1)


def _is_manifest(name: str, mode: str) -> bool:
    return mode != "040000" and name.lower().endswith(ENDINGS)
