"""Recipe ``debian``, the part that needs no packages: files end up below the image's own root and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.backends.images.debian import rootfs
from reconciler.backends.images.tree import file, folder, link
from reconciler.problems import Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with the links that a Debian has, and worse; beside it a folder that is not its own."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for path in (root / "run", root / "usr/bin", root / "var", outside):
        path.mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "var/run").symlink_to("/run")
    (root / "absolute").symlink_to(outside)
    (root / "climbing").symlink_to("../../../outside")
    (root / "circle").symlink_to("circle/x")
    (root / "usr/bin/awk").symlink_to("/etc/alternatives/awk")
    return root


@pytest.mark.parametrize(
    ("path", "really"),
    [
        ("var/run/reconciler/x", "run/reconciler/x"),
        ("bin/tool", "usr/bin/tool"),
        ("climbing/x", "outside/x"),
        ("bin/awk", "usr/bin/awk"),
        ("etc/motd", "etc/motd"),
    ],
)
def test_files_follow_links_as_the_guest_would(root: Path, path: str, really: str) -> None:
    rootfs.put(root, {path: file(b"ours")})
    assert (root / really).read_bytes() == b"ours"
    assert not (root / really).is_symlink()


def test_nothing_is_written_outside(root: Path, tmp_path: Path) -> None:
    rootfs.put(root, {"absolute/x": file(b"ours"), "climbing/y": link("/z"), "absolute/d/e": folder()})
    assert list((tmp_path / "outside").iterdir()) == []
    assert (root / str(tmp_path / "outside").lstrip("/") / "x").read_bytes() == b"ours"


def test_a_circle_is_refused(root: Path) -> None:
    with pytest.raises(Refused, match="too many links"):
        rootfs.put(root, {"circle/x": file(b"ours")})


def test_what_it_takes_is_said_in_one_order() -> None:
    with pytest.raises(Refused, match="takes no size") as refused:
        rootfs.check_fields({"recipe": "debian", "size": "1GiB"})
    assert refused.value.problem.hint == "it takes commands, files, packages, recipe, suite"


STAND_IN = """#!/bin/sh
exec >"$FIFO" 2>&1
for last in "$@"; do :; done
mkdir -p "$last" && mount -t tmpfs left "$last"
sleep 1000 &
echo up
wait
"""
BUILD = """
import sys
from pathlib import Path
from reconciler.backends.images.debian import rootfs
rootfs.bootstrap(Path(sys.argv[1]), {"recipe": "debian"}, ("x",), {}, print)
"""


def test_a_builder_that_is_killed_leaves_no_process_and_no_mount(tmp_path: Path) -> None:
    program, fifo, root = tmp_path / "bin/mmdebstrap", tmp_path / "fifo", tmp_path / "root"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    os.mkfifo(fifo)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "FIFO": str(fifo)}
    command = [sys.executable, "-c", BUILD, str(root)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as builder, fifo.open("rb") as said:
        assert said.readline() == b"up\n"
        builder.kill()
        assert said.read() == b""  # the end comes only when nobody is left who could say something
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
