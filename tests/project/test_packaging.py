"""The wheel, built through the source distribution: one top-level name, and everything that runs is inside."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy of what git knows, so that nothing of ours is left behind and nothing stray gets in."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    copy_tracked(copy)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(copy)], check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Iterator[zipfile.ZipFile]:
    [path] = dist.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def copy_tracked(to: Path) -> None:
    """The files that git knows (or would add), as they stand now; outside a repository, all but caches."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, to / name
        if not source.is_symlink() and not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.write_bytes(source.read_bytes())


def test_the_wheel_ships_one_name(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"reconciler"}


def test_every_schema_and_module_is_inside(wheel: zipfile.ZipFile) -> None:
    shipped = set(wheel.namelist())
    wanted = {f"reconciler/schemas/{path.relative_to(ROOT / 'schemas')}" for path in (ROOT / "schemas").rglob("*.json")}
    for folder, at in (("reconciler", "reconciler"), ("backends", "reconciler/backends")):
        wanted |= {f"{at}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).rglob("*.py")}
    wanted.add("reconciler/py.typed")
    assert any("schemas/" in name for name in wanted)
    assert any("backends/qemu" in name for name in wanted)
    assert wanted <= shipped, sorted(wanted - shipped)


def test_what_backends_read_beside_their_code_is_inside(wheel: zipfile.ZipFile) -> None:
    shipped = set(wheel.namelist())
    data = [
        path.relative_to(ROOT / "backends")
        for path in (ROOT / "backends").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert {f"reconciler/backends/{path}" for path in data} <= shipped


def test_the_command_is_named(wheel: zipfile.ZipFile) -> None:
    [entry] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "reconciler = reconciler.cli:main" in wheel.read(entry).decode()


def test_the_source_brings_its_guides_and_examples(dist: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    wanted |= {"CHANGELOG.md", "docs/systemd/reconciler-watch@.service", "manifests/quickstart/environment.yaml"}
    assert wanted <= inside, sorted(wanted - inside)
