"""cli/boot: the unit that it prints, whatever its paths are called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reconciler.cli import boot
from reconciler.model import QEMU, Observed, Power, ResourceId, Snapshot, World, lxd_backend


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


def one(kind: str, name: str, backend: str, *needs: ResourceId, owned: bool = True, **applied: str) -> Observed:
    return Observed(ResourceId(kind, name), backend, {}, Power.RUNNING, owned=owned, applied=applied, needs=needs)


def test_what_is_in_a_vm_is_stopped_before_it() -> None:
    machines = [one("VirtualMachine", name, QEMU, lifetime="boot") for name in ("first", "second")]
    by_hand = one("VirtualMachine", "by-hand", QEMU)
    inside = [
        one("Container", "db", lxd_backend("first"), machines[0].id, lifetime="boot"),
        one("Container", "web", lxd_backend("first"), machines[0].id),
        one("Container", "web", lxd_backend("second"), machines[1].id),
    ]
    strange = one("Container", "strange", lxd_backend("first"), machines[0].id, owned=False)
    elsewhere = [
        one("Container", "own", lxd_backend("by-hand"), by_hand.id),
        one("Container", "lxds-own", lxd_backend("local"), lifetime="boot"),
    ]
    snapshots: dict[str, Snapshot] = {}
    for seen in [*elsewhere, *machines, strange, by_hand, *inside]:
        known = snapshots[seen.backend].resources if seen.backend in snapshots else {}
        snapshots[seen.backend] = Snapshot(seen.backend, 0.0, {**known, seen.id: seen})
    assert boot.downwards(World(snapshots)) == [inside, machines]
    assert boot.downwards(World({})) == [[], []]
