"""From one commit to the next only other blobs are read and parsed; what comes of it is as if everything were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.again import Prepared
from reconciler.gitops import git as gits
from reconciler.gitops.tree import ROOT, AtCommit, Tree
from reconciler.manifest import parsing
from reconciler.preparation import Wanted
from reconciler.problems import ManifestError
from reconciler.validation import accept, checks
from tests.support.drawn import BASE, ENVIRONMENT, SPECS, declared, few, one_of, text
from tests.support.repository import git

NAMES = ["a.yaml", "in/a.yaml", "in/er/a.yaml", "fresh/a.yaml"]
ENVIRONMENTS = [ENVIRONMENT, ENVIRONMENT.replace("128MiB", "256MiB"), ENVIRONMENT.replace("name: c1}", "name: c2}")]
SOURCE = {"server": "https://x.org", "fingerprint": "ab" * 32}
IMAGE = text([("Image", "i2", {"type": "virtual-machine", "source": SOURCE})])


class History:
    """A bare repository whose commits are made by one git each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, str] = {}
        git(folder, "init", "-q", "--bare", "--initial-branch=main", str(folder))
        self.prepared = Prepared()

    def commit(self, files: Mapping[str, str | None]) -> Tree:
        """These files are others, new, or gone."""
        lines = [b"commit refs/heads/main\ncommitter a <a@x> 0 +0000\ndata 0\n"]
        begun = git(self.folder, "for-each-ref", "refs/heads/main")
        lines += [b"from refs/heads/main^0\n"] if begun else []
        for name, content in files.items():
            if content is None:
                self.files.pop(name, None)
                lines.append(f"D {name}\n".encode())
            else:
                self.files[name] = content
                data = content.encode()
                lines.append(f"M 644 inline {name}\ndata {len(data)}\n".encode() + data + b"\n")
        git(self.folder, "fast-import", "--quiet", data=b"".join(lines))
        return Tree.of(gits.Git(self.folder, ()), git(self.folder, "rev-parse", "main"))

    def comes_to(self, tree: Tree, prepared: Prepared | None = None) -> Wanted | list[str]:
        """What it wants, or everything that is wrong; prepared: by whom, None: by the one that saw all of it."""
        try:
            return (prepared or self.prepared).whole(origin=AtCommit(tree, f"{ROOT}/lab"))
        except ManifestError as error:
            return [str(tree.told(one)) for one in error.problems]


@settings(max_examples=12, deadline=None)
@given(st.data(), st.integers(2, 6), one_of([None, ENVIRONMENT]))
def test_whatever_is_committed_it_comes_to_what_it_comes_to_from_scratch(
    data: st.DataObject, rounds: int, environment: str | None
) -> None:
    with TemporaryDirectory(prefix="commits") as folder:
        here = History(Path(folder))
        files: dict[str, str | None] = {f"lab/{name}": text(documents) for name, documents in BASE.items()}
        files |= {
            "lab/i2.yaml": IMAGE,
            "lab/payload.txt": "payload",
            "lab/in/there.yaml": text([("Project", "j0", {})]),
        }
        files |= {"lab/environment.yaml": environment} if environment is not None else {}
        tree = here.commit(files)
        for number in range(rounds):
            expected, found = here.comes_to(Tree.of(tree.git, tree.commit), Prepared()), here.comes_to(tree)
            if isinstance(expected, Wanted) and isinstance(found, Wanted):
                assert dict(found.desired) == dict(expected.desired)
                assert found.environment == expected.environment
            else:
                assert found == expected
            names = [*NAMES, "c1.yaml", "c0.yaml", "v0.yaml", "payload.txt", "environment.yaml"]
            touched = data.draw(st.lists(one_of(names), unique=True, **few))
            tree = here.commit({f"lab/{name}": drawn(data, name, number) for name in touched})


def drawn(data: st.DataObject, name: str, number: int) -> str | None:
    if name == "environment.yaml":
        return data.draw(one_of(ENVIRONMENTS))
    if name.endswith(".txt"):
        return f"{number}"
    if name in BASE:
        kind, called, _ = BASE[name][0]
        return text([(kind, called, data.draw(SPECS[kind][1])), *BASE[name][1:]], data.draw(st.integers(0, 2)))
    if data.draw(one_of(["put", "put", "gone"])) == "gone":
        return None
    return text(data.draw(st.lists(declared(), max_size=2, min_size=1)), data.draw(st.integers(0, 2)))


def test_of_a_thousand_files_a_commit_has_only_its_own_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, parsed, checked = History(tmp_path), list[str](), list[str]()
    parse = parsing.parse

    def parse_counted(words: str) -> object:
        parsed.append(words)
        return parse(words)

    def accepts(data: Mapping[str, object]) -> bool:
        checked.append(str(data["metadata"]))
        return accept.accepts(data)

    monkeypatch.setattr(parsing, "parse", parse_counted)
    monkeypatch.setattr(checks, "accepts", accepts)
    many: dict[str, str | None] = {f"lab/{n:04}.yaml": text([("Project", f"p{n}", {})]) for n in range(1000)}
    first = here.comes_to(here.commit(many))
    assert isinstance(first, Wanted) and len(parsed) == len(checked) == 1000
    changes: dict[str, tuple[dict[str, str | None], int]] = {
        "saved": ({"lab/0003.yaml": text([("Project", "p3", {"description": "x"})])}, 1),
        "new": ({"lab/new/a.yaml": text([("Project", "new", {})])}, 1),
        "gone": ({"lab/0004.yaml": None}, 0),
        "wrong": ({"lab/0005.yaml": "kind: ["}, 1),
        "elsewhere": ({"lab/0005.yaml": many["lab/0005.yaml"], "README": "x"}, 0),
    }
    for what, (files, count) in changes.items():
        parsed.clear()
        checked.clear()
        tree = here.commit(files)
        found = here.comes_to(tree)
        assert len(parsed) == len(tree.contents) == count, what
        assert len(checked) <= count, what
        assert isinstance(found, Wanted) == (what != "wrong")
        if isinstance(found, Wanted):
            carried = sum(1 for id, want in found.desired.items() if want is first.desired.get(id))
            assert carried >= 997, what
            first = found
