"""Every folder of manifests/: apply makes it so, a second apply does nothing, delete leaves nothing."""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Place
from tests.images.web import Web, body
from tests.support.pairs import SQUASHFS, parts_in
from tests.support.unique import own_name, own_net, own_port

ELSEWHERE = {"crostini"}  # test_tower.py does all of this with it, and more
FROM_THE_INTERNET = {"nixos"}  # fetched from servers that a test must not need: stand-ins come from one on loopback
TAKES_LONG = {"baguette"}  # a whole Debian is made for it
LONG = [pytest.mark.proof, pytest.mark.timeout(1200)]
BRIDGE, NET = own_name("m"), f"{own_net()}.77"
FOLDERS = sorted(path for path in (ROOT / "manifests").iterdir() if path.is_dir())
HERE = [
    pytest.param(path, marks=LONG if path.name in TAKES_LONG else [], id=path.name)
    for path in FOLDERS
    if path.name not in ELSEWHERE | FROM_THE_INTERNET
]


def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that only we can write to, as the reading of manifests demands.

    What two runs on one machine cannot both have is another in each: ports of this host, bridges and their subnets.
    """
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    copy.chmod(0o700)
    for path in copy.rglob("*.yaml"):
        text = re.sub(r'(?<=^  listen: "127\.0\.0\.1:)\d+', lambda _: str(own_port()), path.read_text(), flags=re.M)
        path.write_text(text.replace("demo-br", BRIDGE).replace("10.213.77.", f"{NET}."))
    return copy


@pytest.fixture(params=HERE)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One of the folders."""
    return str(copied(request.param, tmp_path))


def test_there_are_examples() -> None:
    assert "quickstart" in {path.name for path in FOLDERS}


def test_an_example_comes_into_being_stays_and_goes(place: Place, example: str) -> None:
    _comes_into_being_stays_and_goes(place, example)


@pytest.mark.parametrize("name", sorted(FROM_THE_INTERNET | TAKES_LONG))
def test_an_example_is_right_and_can_be_planned(place: Place, tmp_path: Path, name: str) -> None:
    """As it is written: its own addresses, and nothing of it fetched or made."""
    example = str(copied(ROOT / "manifests" / name, tmp_path))
    place.ok("validate", example)
    planned = place.ok("plan", "-o", "json", example).json
    assert planned["applyable"] and planned["complete"]
    assert set(planned["summary"]) <= {"create", "noop"}


def test_an_example_with_stand_ins_for_what_it_fetches(place: Place, tmp_path: Path) -> None:
    folder, parts = copied(ROOT / "manifests" / "nixos", tmp_path), parts_in(tmp_path)
    pages = {"url": lzma.compress(parts["metadata"]), "rootfsUrl": parts[SQUASHFS]}
    manifest = folder / "nixos.yaml"
    with Web() as web:
        text = manifest.read_text()
        for (field, data), digest in zip(pages.items(), ("sha256", "rootfsSha256"), strict=True):
            web.pages[f"/{field}"] = body(data)
            text = re.sub(f"(?m)^( +{field}: ).*$", rf"\g<1>{web.url(f'/{field}')}", text)
            text = re.sub(f"(?m)^( +{digest}: ).*$", rf"\g<1>{hashlib.sha256(data).hexdigest()}", text)
        manifest.write_text(text)
        _comes_into_being_stays_and_goes(place, str(folder))
    assert web.asked == ["/url", "/rootfsUrl"]


def _comes_into_being_stays_and_goes(place: Place, example: str) -> None:
    place.ok("validate", example)
    planned = place.ok("plan", "-o", "json", example).json
    assert planned["applyable"]
    assert planned["complete"]
    assert set(planned["summary"]) <= {"create", "noop"}

    first = place.ok("apply", "--yes", "-o", "json", example, timeout=900).json
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
