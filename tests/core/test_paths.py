"""paths.py: what we keep is ours alone, and written whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.paths import private_dir, write_private


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_folder_that_is_made_is_ours_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_dir(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert [mode(folder) for folder in (made, made.parent, made.parent.parent)] == [0o700] * 3


def test_a_folder_that_others_may_enter_is_closed_and_its_parents_are_left_alone(tmp_path: Path) -> None:
    parent = tmp_path / "theirs"
    parent.mkdir(mode=0o755)
    (parent / "ours").mkdir(mode=0o755)
    private_dir(parent / "ours")
    assert (mode(parent / "ours"), mode(parent)) == (0o700, 0o755)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "record"
    write_private(file, b"one")
    write_private(file, b"two")
    assert file.read_bytes() == b"two" and mode(file) == 0o600 and list(tmp_path.iterdir()) == [file]


def test_many_who_write_it_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    file, whole = tmp_path / "record", [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda turn: write_private(file, whole[turn % 8]), range(200)):
            assert file.read_bytes() in whole
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_bytes(b"kept")
    with pytest.raises(OSError, match="folder"):
        write_private(tmp_path / "folder", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
