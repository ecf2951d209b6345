"""Style, types and the order of the rooms, run as the recipes run them, so that no change slips by."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "reconciler").rglob("*.py")) + sorted((ROOT / "backends").rglob("*.py"))


def test_rooms_import_downwards_only() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_where_it_stands_and_stays_small(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the first line of a file says its place"
    assert len(text.splitlines()) <= 480, "a file grows into a folder of the same name"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text()
    assert not any(word in text for word in ("TODO", "FIXME", "XXX", "HACK"))


def test_no_test_is_skipped_and_nothing_is_mocked() -> None:
    words = ("pytest.mark." + "skip", "pytest." + "skip(", "xf" + "ail", "unittest." + "mock", "Magic" + "Mock")
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        assert not [word for word in words if word in text], path
