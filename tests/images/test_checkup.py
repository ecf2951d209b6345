"""What doctor says of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.backends.images import checkup, container_image
from reconciler.ports import Check, Settings


def found(state: Path) -> dict[str, Check]:
    """The checks by name."""
    return {check.name: check for check in checkup.checks(Settings("tests", state, state / "run"))}


def test_here_all_is_well(state: Path) -> None:
    checks = found(state)
    assert list(checks) == ["busybox", "package tools", "image cache", "room for state"]
    assert all(check.ok for check in checks.values())
    assert checks["image cache"].found.startswith("0 entries, 0 MiB")


def test_what_is_cached_is_counted(state: Path) -> None:
    container_image({"build": {"recipe": "busybox"}}, state, lambda _: None)
    assert found(state)["image cache"].found.startswith("1 entries, 1 MiB")


def test_a_state_folder_that_is_not_there_yet(state: Path) -> None:
    checks = found(state / "not" / "there")
    assert f"free at {state}" in checks["room for state"].found
    assert not (state / "not").exists()


def test_no_room(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "ROOM", 1 << 60)
    check = found(state)["room for state"]
    assert check.ok is False
    assert "RECONCILER_STATE_DIR" in check.hint


def test_a_bare_host(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "HOST_BUSYBOX", ())
    assert (found(state)["busybox"].ok, found(state)["busybox"].fix is not None) == (None, True)
    monkeypatch.setenv("PATH", "/nowhere")
    checks = found(state)
    assert checks["busybox"].ok is False
    assert checks["package tools"].ok is None
    assert "apt-get" in checks["package tools"].found
    assert all(check.hint for check in checks.values() if not check.ok)
