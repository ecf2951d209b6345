"""Where an LXD has refused to map owners: remembered, and no longer than it is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.owners import Owners

ABLE = {
    "certificate_fingerprint": "ab",
    "server_pid": 1,
    "server_version": "5.0.2",
    "driver_version": "5.0.2",
    "kernel_version": "6.1",
    "kernel_features": {"idmapped_mounts": "true", "shiftfs": "false"},
    "lxc_features": {"idmapped_mounts_v2": "true"},
}
ELSEWHERE = "/proc"
"""A folder on a mount of its own."""


def test_what_was_refused_is_not_tried_again(tmp_path: Path) -> None:
    first = Owners(tmp_path / "state", ABLE)
    assert first.may(str(tmp_path)) and first.may(ELSEWHERE)
    first.refuse([str(tmp_path)])
    for one in (first, Owners(tmp_path / "state", ABLE)):
        assert not one.may(str(tmp_path)) and one.may(ELSEWHERE)


@pytest.mark.parametrize(
    "other",
    [
        {"server_pid": 2},
        {"server_version": "5.21"},
        {"driver_version": "6.0"},
        {"kernel_version": "6.12"},
        {"certificate_fingerprint": "cd"},
        {"kernel_features": {"idmapped_mounts": "true", "shiftfs": "true"}},
        {"lxc_features": {}},
    ],
)
def test_another_lxd_is_asked_anew(tmp_path: Path, other: dict[str, Any]) -> None:
    Owners(tmp_path, ABLE).refuse([str(tmp_path)])
    assert Owners(tmp_path, {**ABLE, **other}).may(str(tmp_path))
    assert not Owners(tmp_path, ABLE).may(str(tmp_path))


def test_one_that_says_it_cannot_is_believed(tmp_path: Path) -> None:
    for features in ({}, None, {"idmapped_mounts": "false", "shiftfs": "false"}):
        assert not Owners(tmp_path, {**ABLE, "kernel_features": features}).may(str(tmp_path))


def test_of_several_nobody_knows_which_one_it_was(tmp_path: Path) -> None:
    first = Owners(tmp_path, ABLE)
    first.refuse([str(tmp_path), ELSEWHERE])
    assert not first.may(str(tmp_path)) and not first.may(ELSEWHERE)
    assert Owners(tmp_path, ABLE).may(str(tmp_path))


@pytest.mark.parametrize("said", ["", "[]", "{", '{"a": 1}', "nonsense"])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, said: str) -> None:
    (tmp_path / "lxd-owners.json").write_text(said)
    one = Owners(tmp_path, ABLE)
    assert one.may(str(tmp_path))
    one.refuse([str(tmp_path)])
    assert not Owners(tmp_path, ABLE).may(str(tmp_path))


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    for number in range(40):
        Owners(tmp_path, {**ABLE, "server_pid": number}).refuse([str(tmp_path)])
    assert len((tmp_path / "lxd-owners.json").read_text()) < 4000
    assert not Owners(tmp_path, {**ABLE, "server_pid": 39}).may(str(tmp_path))


def test_a_folder_that_is_gone_is_tried(tmp_path: Path) -> None:
    assert Owners(tmp_path, ABLE).may(str(tmp_path / "gone"))
