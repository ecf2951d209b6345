"""composition.py: what an environment.yaml comes to, and every way in which it could come to less than was meant."""

# ruff: noqa: E501  a table reads best with one case a line
from __future__ import annotations

from pathlib import Path

import pytest

from reconciler import validation
from reconciler.composition import Composition, compose
from reconciler.problems import ManifestError

HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text)


def environment(name: str, spec: str) -> str:
    return HEAD.format("Environment", name, spec)


def project(name: str) -> str:
    return HEAD.format("Project", name, "{}")


def composed(folder: Path) -> Composition:
    return compose(validation.load([str(folder)]), lambda path: validation.load([path]))


def names(composition: Composition) -> list[str]:
    return [document.data["metadata"]["name"] for document in composition.documents]


def test_without_an_environment_the_documents_stand_for_themselves(folder: Path) -> None:
    write(folder, {"a.yaml": project("a"), "b.yaml": project("b")})
    found = composed(folder)
    assert (found.environment, names(found), found.prune) == ("default", ["a", "b"], False)


def test_files_folders_and_other_environments_come_together(folder: Path) -> None:
    write(
        folder,
        {
            "environment.yaml": environment(
                "lab", "{resources: [a.yaml, more, other], prune: true, approve: {restart: true}}"
            ),
            "a.yaml": project("a"),
            "unlisted.yaml": project("unlisted"),
            "more/b.yaml": project("b"),
            "other/environment.yaml": environment("other", "{resources: [c.yaml], prune: false}"),
            "other/c.yaml": project("c"),
        },
    )
    found = composed(folder)
    assert (found.environment, sorted(names(found))) == ("lab", ["a", "b", "c"])
    assert found.prune and found.approve == {"restart": True}


def test_what_several_roads_lead_to_counts_once(folder: Path) -> None:
    listed = environment("lab", "{resources: [more, more/a.yaml, base, base]}")
    base = environment("base", "{resources: [../more/a.yaml]}")
    write(folder, {"environment.yaml": listed, "more/a.yaml": project("a"), "base/environment.yaml": base})
    assert names(composed(folder)) == ["a"]


@pytest.mark.parametrize(
    ("files", "summary", "place"),
    [
        ({"environment.yaml": environment("lab", "{resources: [.], prune: true}")}, "leads back to", "environment.yaml:4:20"),
        ({"environment.yaml": environment("lab", "{resources: [environment.yaml]}")}, "leads back to", "environment.yaml:4:20"),
        (
            {
                "environment.yaml": environment("lab", "{resources: [a.yaml, other]}"),
                "a.yaml": project("a"),
                "other/environment.yaml": environment("other", "{resources: [..]}"),
            },
            "leads back to",
            "other/environment.yaml:4:20",
        ),
        ({"environment.yaml": environment("lab", "{resources: [], prune: true}")}, "no resources at all", "environment.yaml:4:"),
        ({"environment.yaml": environment("lab", "{prune: true}")}, "no resources at all", "environment.yaml:4:"),
        ({"environment.yaml": environment("lab", "{resources: [gone.yaml]}")}, "no such file", "environment.yaml:4:20"),
    ],
    ids=["itself as a folder", "itself as a file", "in a circle", "an empty list", "no list", "a file that is gone"],
)  # fmt: skip
def test_less_than_was_meant_is_an_error(folder: Path, files: dict[str, str], summary: str, place: str) -> None:
    write(folder, files)
    with pytest.raises(ManifestError) as caught:
        composed(folder)
    problem = caught.value.problems[0]
    assert summary in problem.summary
    assert f"{folder}/{place}" in str(problem.mark)
    assert problem.subject is not None or summary == "no such file"


def test_every_problem_of_every_listed_file_is_told_at_once(folder: Path) -> None:
    bad = HEAD.format("Project", "NAME", "{nonsense: 1}")
    listed = environment("lab", "{resources: [a.yaml, b.yaml, gone.yaml]}")
    write(folder, {"environment.yaml": listed, "a.yaml": bad.replace("NAME", "a"), "b.yaml": bad.replace("NAME", "b")})
    with pytest.raises(ManifestError) as caught:
        composed(folder)
    assert [problem.mark.file.rpartition("/")[2] for problem in caught.value.problems if problem.mark] == [
        "a.yaml",
        "b.yaml",
        "environment.yaml",
    ]
