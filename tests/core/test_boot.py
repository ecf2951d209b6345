"""cli/boot: the unit that it prints, whatever its paths are called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reconciler.cli import boot


def test_paths_are_one_word_each_to_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "my tools" / "100%"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    for name in ("LXD_DIR", "LXD_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECONCILER_STATE_DIR", '/a "b"/c\\d/5%')
    lines = boot.unit(system=True).splitlines()
    assert f'ExecStart="{tmp_path}/my tools/100%%" boot' in lines
    assert f'ExecStop="{tmp_path}/my tools/100%%" boot --down' in lines
    assert r'''Environment="RECONCILER_STATE_DIR=/a \"b\"/c\\d/5%%"''' in lines
    monkeypatch.setenv("RECONCILER_STATE_DIR", "/var/lib/x-1")
    assert 'Environment="RECONCILER_STATE_DIR=/var/lib/x-1"' in boot.unit(system=False).splitlines()
