"""verdict.py: an answer is remembered only as long as it is certainly still true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.problems import ManifestError
from reconciler.validation.loading import WORTHWHILE
from reconciler.verdict import verdict

PROJECT = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {{name: p{}}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "state"))
    manifests = tmp_path / "manifests"
    for made in (tmp_path, manifests):
        made.mkdir(mode=0o700, exist_ok=True)
        made.chmod(0o700)
    for number in range(WORTHWHILE):
        (manifests / f"{number}.yaml").write_text(PROJECT.format(number))
    return manifests


def test_the_second_answer_is_the_first_one_remembered(folder: Path) -> None:
    first, second = verdict([str(folder)]), verdict([str(folder)])
    assert len(first.resources) == WORTHWHILE and first.environment == "default" and not first.remembered
    assert second == replace(first, remembered=True)


def test_a_changed_file_is_looked_at_again(folder: Path) -> None:
    verdict([str(folder)])
    (folder / "7.yaml").write_text(PROJECT.format(7) + "spec: {nonsense: 1}\n")
    with pytest.raises(ManifestError, match="nonsense"):
        verdict([str(folder)])


def test_a_new_file_is_looked_at_again(folder: Path) -> None:
    verdict([str(folder)])
    (folder / "twin.yaml").write_text(PROJECT.format(7))
    with pytest.raises(ManifestError, match="Project/p7"):
        verdict([str(folder)])


@pytest.mark.parametrize(
    "manifest",
    [
        "kind: Image\nmetadata: {name: i}\nspec: {type: container, source: {file: other}}\n",
        "kind: VirtualMachine\nmetadata: {name: v}\nspec: {files: [{path: /x, source: other}]}\n",
    ],
    ids=["an image's file", "a file put into a guest"],
)
def test_what_hangs_on_other_files_is_never_remembered(folder: Path, manifest: str) -> None:
    (folder / "one.yaml").write_text(f"apiVersion: reconciler/v1\n{manifest}")
    (folder / "other").write_bytes(b"x")
    verdict([str(folder)])
    assert not verdict([str(folder)]).remembered
    (folder / "other").unlink()
    with pytest.raises(ManifestError, match="other"):
        verdict([str(folder)])


WRONG = "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: p}\nspec: {nonsense: 1}\n"


def told(*paths: Path) -> list[str]:
    """What is said of them, without places."""
    with pytest.raises(ManifestError) as caught:
        verdict([str(path) for path in paths])
    return [problem.summary for problem in caught.value.problems]


@pytest.mark.parametrize("others", [0, WORTHWHILE])
def test_a_text_that_is_none_hides_no_other_problem(others: int, folder: Path) -> None:
    for number in range(others, WORTHWHILE):
        (folder / f"{number}.yaml").unlink()
    (folder / "broken.yaml").write_text("a: [\n")
    (folder / "twice.yaml").write_text("kind: Project\nkind: Project\n")  # may be wrong because of that
    (folder / "wrong.yaml").write_text(WRONG)
    [broken, twice, wrong] = told(folder)
    assert "not YAML" in broken and "second time" in twice and "nonsense" in wrong


def test_what_may_be_patched_yet_is_not_called_wrong(folder: Path) -> None:
    """Its Environment comes to nothing: nobody knows what it would have been."""
    (folder / "parts").mkdir()
    (folder / "parts" / "broken.yaml").write_text("a: [\n")
    (folder / "parts" / "wrong.yaml").write_text(WRONG)
    environment = folder.parent / "environment.yaml"
    environment.write_text(
        "apiVersion: reconciler/v1\nkind: Environment\nmetadata: {name: e}\nspec:\n  resources: [manifests/parts]\n"
        "  patches: [{target: {kind: Project}, json: [{op: remove, path: /spec/nonsense}]}]\n"
    )
    assert not any("nonsense" in one for one in told(environment))
