"""Every folder of manifests/: apply makes it so, a second apply does nothing, delete leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Place

ELSEWHERE = {"crostini"}  # test_tower.py does all of this with it, and more
FOLDERS = sorted(path for path in (ROOT / "manifests").iterdir() if path.is_dir() and path.name not in ELSEWHERE)


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A copy of the folder that only we can write to, as the reading of manifests demands."""
    copy = tmp_path / request.param.name
    shutil.copytree(request.param, copy)
    copy.chmod(0o700)
    return str(copy)


def test_there_are_examples() -> None:
    assert "quickstart" in {path.name for path in FOLDERS}


def test_an_example_comes_into_being_stays_and_goes(place: Place, example: str) -> None:
    place.ok("validate", example)
    planned = place.ok("plan", "-o", "json", example).json
    assert planned["applyable"]
    assert planned["complete"]
    assert set(planned["summary"]) <= {"create", "noop"}

    first = place.ok("apply", "--yes", "-o", "json", example).json
    assert first["converged"]
    assert {outcome["result"] for outcome in first["outcomes"]} <= {"applied", "unchanged"}

    assert place.ok("plan", "--exit-code", example).out.startswith("Nothing to do")
    second = place.ok("apply", "-o", "json", example).json  # without --yes: nothing to ask
    assert second["converged"]
    assert {outcome["verb"] for outcome in second["outcomes"]} == {"noop"}

    listed = place.ok("get", "-o", "json").json
    assert all(resource["owned"] for resource in listed)
    assert {step["id"] for step in planned["steps"]} <= {resource["id"] for resource in listed}

    place.ok("delete", "--yes", "--confirm-delete", example)
    assert place.names() == set()
