"""What was right once is known by its contents; nothing else in the cache is trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler import validation
from reconciler.problems import ManifestError
from reconciler.validation.cache import Answers
from reconciler.validation.loading import WORTHWHILE
from tests.support.manifests import written


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Just enough manifests for a cache, and a state folder for it."""
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "state"))
    folder = tmp_path / "manifests"
    folder.mkdir()
    for number in range(WORTHWHILE):
        (folder / f"{number:03}.yaml").write_text(
            written("Profile", f"config: {{user.number: {number}}}", f"p{number}")
        )
    return folder


def kept(folder: Path, name: str) -> Path:
    """The file ``documents-…`` or ``answers-…``."""
    (found,) = (folder.parent / "state" / "cache" / "manifests").glob(f"{name}-*")
    return found


def load(folder: Path) -> validation.Loaded:
    return validation.load_manifests([str(folder)])


def test_the_second_time_everything_is_known(folder: Path) -> None:
    first, second = load(folder), load(folder)
    assert (first.cached, second.cached) == (False, True)
    assert first.digest == second.digest
    assert second.documents == first.documents
    assert second[7].data == first[7].data
    assert str(second[7].mark) == str(first[7].mark)
    assert len(second) == WORTHWHILE
    assert second.files == first.files


def test_the_cache_is_ours_alone(folder: Path) -> None:
    load(folder)
    for name in ("documents", "answers"):
        assert kept(folder, name).stat().st_mode & 0o777 == 0o600
    assert kept(folder, "answers").parent.stat().st_mode & 0o777 == 0o700
    assert kept(folder, "answers").parent.parent.stat().st_mode & 0o777 == 0o700


def test_a_few_files_need_no_cache(folder: Path, tmp_path: Path) -> None:
    (folder / "000.yaml").unlink()
    load(folder)
    assert not (tmp_path / "state").exists()


def test_a_changed_file_is_looked_at(folder: Path) -> None:
    load(folder)
    (folder / "003.yaml").write_text(written("Profile", "confg: {}", "p3"))
    with pytest.raises(ManifestError) as caught:
        load(folder)
    assert [one.summary for one in caught.value.problems] == ['unknown field "confg"']
    (folder / "003.yaml").write_text(written("Profile", "config: {user.number: new}", "p3"))
    again = load(folder)
    assert not again.cached
    assert again[3].data["spec"]["config"] == {"user.number": "new"}
    assert load(folder).cached


def test_names_are_compared_even_when_every_file_is_known(folder: Path) -> None:
    load(folder)
    (folder / "copy.yaml").write_bytes((folder / "000.yaml").read_bytes())
    with pytest.raises(ManifestError) as caught:
        load(folder)
    assert "declared for the second time" in caught.value.problems[0].summary
    assert str(folder / "000.yaml") in caught.value.problems[0].summary


def test_what_is_wrong_is_never_kept(folder: Path) -> None:
    (folder / "000.yaml").write_text("a: 1\n")
    for _ in range(2):
        with pytest.raises(ManifestError):
            load(folder)


def test_rights_are_looked_at_every_time(folder: Path) -> None:
    load(folder)
    (folder / "003.yaml").chmod(0o666)
    with pytest.raises(ManifestError, match="can be written by others"):
        load(folder)


def test_one_by_one_is_not_together(folder: Path) -> None:
    (folder / "copy.yaml").write_bytes((folder / "000.yaml").read_bytes())
    assert len(validation.load([str(folder)])) == WORTHWHILE + 1
    with pytest.raises(ManifestError):
        load(folder)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "nonsense", "readable", "linked", "folder", "pipe"])
@pytest.mark.parametrize("name", ["documents", "answers"])
def test_what_is_not_as_we_left_it_is_as_if_it_were_not_there(folder: Path, name: str, damage: str) -> None:
    first = load(folder)
    for one in ("documents", "answers") if name == "documents" else ("answers",):
        _damage(kept(folder, one), damage)
    again = load(folder)
    assert again.cached == (name == "answers")  # without the answers, documents are still known one by one
    assert again.documents == first.documents


def _damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "readable":
        path.chmod(0o644)
    elif how in ("linked", "folder", "pipe"):
        path.unlink()
        if how == "linked":
            path.symlink_to("/etc/hostname")
        elif how == "folder":
            path.mkdir()
        else:
            os.mkfifo(path)
    else:
        damaged = {
            "cut": content[:-10],
            "flipped": content[:-9] + b"x" + content[-8:],
            "empty": b"",
            "nonsense": b"x\ny",
        }
        path.write_bytes(damaged[how])


def test_documents_survive_lost_documents(folder: Path) -> None:
    first = load(folder)
    kept(folder, "documents").unlink()
    again = load(folder)
    assert again.cached
    assert again.documents == first.documents


def test_answers_about_a_set(folder: Path) -> None:
    first = load(folder)
    assert first.recall("how many?") is None
    first.remember("how many?", {"resources": 200})
    assert load(folder).recall("how many?") == {"resources": 200}
    assert load(folder).recall("how few?") is None
    (folder / "003.yaml").write_text(written("Profile", "", "p3"))
    assert load(folder).recall("how many?") is None


def test_no_answers_are_kept_about_a_few_files(folder: Path) -> None:
    loaded = validation.load_manifests([str(folder / "000.yaml")])
    loaded.remember("how many?", 1)
    assert loaded.recall("how many?") is None


def test_only_the_newest_sets_are_kept(folder: Path) -> None:
    for number in range(12):
        (folder / "003.yaml").write_text(written("Profile", f"config: {{user.number: new-{number}}}", "p3"))
        load(folder)
    assert len(Answers.of([str(folder)]).by_digest) == 8


def test_a_state_folder_that_cannot_be_written_is_no_reason_to_fail(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    assert not load(folder).cached
    assert not load(folder).cached


def test_old_caches_go(folder: Path) -> None:
    load(folder)
    caches = kept(folder, "answers").parent
    for number in range(40):
        (caches / f"documents-{number}").write_text("")
        os.utime(caches / f"documents-{number}", (1, 1))
    (folder / "003.yaml").write_text(written("Profile", "", "p3"))
    load(folder)
    assert len(list(caches.iterdir())) == 32
    assert load(folder).cached


def test_where_one_stands_matters_for_relative_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    first = validation.load_manifests(["manifests"])
    monkeypatch.chdir(folder)
    assert validation.load_manifests(["../manifests"]).digest != first.digest
