"""Which LXD ``socket: auto`` means; no LXD needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.backends.lxd import address
from reconciler.backends.lxd.address import resolve_address


@pytest.fixture(autouse=True)
def usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(address, "SNAP_SOCKET", tmp_path / "snap.socket")
    monkeypatch.setattr(address, "DISTRIBUTION_SOCKET", tmp_path / "distribution.socket")
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "there", "expected"),
    [
        ({"LXD_SOCKET": "/a", "LXD_DIR": "/b"}, ["snap", "distribution"], "/a"),
        ({"LXD_DIR": "/b"}, ["snap", "distribution"], "/b/unix.socket"),
        ({}, ["snap", "distribution"], "snap.socket"),
        ({}, ["distribution"], "distribution.socket"),
        ({}, [], "state/lxd/unix.socket"),
    ],
)
def test_auto(environment: dict[str, str], there: list[str], expected: str, usual_places: Path) -> None:
    for name in there:
        (usual_places / f"{name}.socket").touch()
    found = resolve_address({"socket": "auto"}, usual_places / "state", environment)
    assert found.socket == usual_places / expected


def test_a_named_socket_is_taken_whatever_the_environment_says(tmp_path: Path) -> None:
    found = resolve_address({"socket": "/run/x", "project": "p"}, tmp_path, {"LXD_SOCKET": "/a"})
    assert (found.socket, found.project) == (Path("/run/x"), "p")


def test_a_url_brings_its_certificates(tmp_path: Path) -> None:
    spec = {"url": "https://h:8443/", "serverCertificate": "/s", "clientCertificate": "/c", "clientKey": "/k"}
    found = resolve_address({**spec, "target": "m1"}, tmp_path, {})
    assert (found.url, found.server_certificate, found.target) == ("https://h:8443", Path("/s"), "m1")
    assert found.socket is None
