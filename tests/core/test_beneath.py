"""Paths that are opened once, without following anything: what is opened, what is refused and in which words."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from reconciler.beneath import open_beneath, refusal


def opened(root: Path, path: Path) -> tuple[int, int]:
    handle = open_beneath(root, path)
    try:
        assert not os.get_inheritable(handle)
        there = os.fstat(handle)
        return there.st_dev, there.st_ino
    finally:
        os.close(handle)


def said(root: Path, path: Path) -> str:
    with pytest.raises(OSError) as caught:
        open_beneath(root, path)
    problem = refusal(caught.value, path, "VirtualMachine/vm").problem
    assert problem.subject == "VirtualMachine/vm"
    return problem.summary


def test_a_folder_and_the_root_itself_are_opened(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for root, path in ((Path("/"), inner), (tmp_path, inner), (tmp_path, Path("a/../a/b"))):
        assert opened(root, path) == (inner.stat().st_dev, inner.stat().st_ino)
    assert opened(inner, inner)[1] == inner.stat().st_ino


def test_no_link_is_followed_wherever_it_stands_and_leads(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "last").symlink_to("real")
    (tmp_path / "etc").symlink_to("/etc")
    for path in ("last", "last/inner", "etc", "etc/shadow"):
        assert "a symbolic link is on the way" in said(tmp_path, tmp_path / path)
    assert "a symbolic link is on the way" in said(Path("/"), Path("/proc/self/root"))


def test_what_lies_outside_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert "leads out of" in said(root, tmp_path)
    assert "leads out of" in said(root, root / ".." / "root")
    assert "leads out of" in said(root, Path("../root"))


def test_the_root_is_trusted_and_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert opened(tmp_path / "link", tmp_path / "link")[1] == (tmp_path / "real").stat().st_ino


def test_what_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "does not exist" in said(tmp_path, tmp_path / "nothing")
    assert "is not a folder" in said(tmp_path, tmp_path / "file" / "inner")
    assert "does not exist" in said(tmp_path / "nothing", tmp_path / "nothing" / "inner")


def test_whoever_swaps_a_folder_for_a_link_meanwhile_never_leads_us_astray(tmp_path: Path) -> None:
    (tmp_path / "good" / "inner").mkdir(parents=True)
    (tmp_path / "evil" / "inner").mkdir(parents=True)
    place, aside, link = tmp_path / "place", tmp_path / "aside", tmp_path / "link"
    (tmp_path / "good").rename(place)
    link.symlink_to("evil")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            place.rename(aside)
            link.rename(place)
            place.rename(link)
            aside.rename(place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    evil, seen = (tmp_path / "evil" / "inner").stat().st_ino, set[int]()
    try:
        tries = 0
        while tries < 2000 or len(seen) < 2:  # where the machine is busy, the other one gets its turn late
            tries += 1
            try:
                seen.add(opened(tmp_path, place / "inner")[1])
            except OSError:
                seen.add(0)
    finally:
        done.set()
        swapper.join()
    assert len(seen) == 2 and evil not in seen
