"""Blank disks that are made without ``qemu-img``: it finds nothing wrong with them, and sees what was asked for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import blank, qemu_img
from reconciler.backends.qemu.disks import header_of

TIB = 1 << 40
SIZES = [0, 1, 512, 1000, 16 << 20, 512 << 20, (512 << 20) + 512, 100 << 30, 4 * TIB]


def img(verb: str, path: Path) -> Any:
    command = ["qemu-img", verb, "--output=json", "-f", "qcow2", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("size", SIZES)
def test_qemu_img_finds_it_whole(tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk.qcow2"
    qemu_img.create(disk, "qcow2", size, "Disk/disk")
    found, whole = img("check", disk), -(-size // 512) * 512
    assert found["check-errors"] == 0 and not {"leaks", "corruptions"} & found.keys()
    about = img("info", disk)
    assert about["virtual-size"] == whole == header_of(disk).size
    assert about["format-specific"]["data"] | {"compat": "1.1", "corrupt": False} == about["format-specific"]["data"]
    assert disk.stat().st_mode & 0o777 == 0o600 and [*tmp_path.iterdir()] == [disk]


def test_what_is_written_into_it_is_there_and_it_is_whole_still(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    qemu_img.create(disk, "qcow2", 3 << 30, "Disk/disk")
    write = ["-c", "write -P 7 0 1M", "-c", "write -P 8 3071M 1M", "-c", "read -P 7 0 1M", "-c", "read -P 8 3071M 1M"]
    said = subprocess.run(["qemu-io", *write, "-c", "read -P 0 1M 1M", str(disk)], capture_output=True, text=True)
    assert said.returncode == 0 and "failed" not in said.stdout, said.stdout
    assert img("check", disk)["check-errors"] == 0


def test_a_raw_one_is_a_hole(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    qemu_img.create(disk, "raw", 1_000_000_001, "Disk/disk")
    assert disk.stat().st_size == -(-1_000_000_001 // 512) * 512 and disk.stat().st_blocks == 0


def test_what_is_beyond_one_table_is_made_by_qemu_img(tmp_path: Path) -> None:
    assert not blank.can_make("qcow2", 4 * TIB + 512) and not blank.can_make("vmdk", 512)
    disk = tmp_path / "disk.qcow2"
    qemu_img.create(disk, "qcow2", 4 * TIB + 512, "Disk/disk")
    assert img("info", disk)["virtual-size"] == 4 * TIB + 512


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "disk").symlink_to(victim)
    with pytest.raises(FileExistsError):
        blank.make(tmp_path / "disk", "raw", 512)
    assert not victim.exists()
