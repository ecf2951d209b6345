"""cli/owners: whose end is a guest's end, and which guests can end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.backends.qemu import companions
from reconciler.cli import owners
from reconciler.cli.expire import unknown
from reconciler.cli.owners import Bound, find, guests
from reconciler.model import Desired, ResourceId, Snapshot, World
from reconciler.problems import Problem, UsageError

VM, WEB = ResourceId("VirtualMachine", "vm"), ResourceId("Container", "web")
SESSION = {"lifetime": "session"}


def test_the_named_process_then_the_login_then_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_SESSION_ID", "c7")
    (tmp_path / "c7").write_text(f"UID=0\nLEADER={os.getppid()}\nCLASS=user\n")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        assert find(other.pid, tmp_path).pid == other.pid
    assert find(None, tmp_path).pid == os.getppid()
    monkeypatch.setattr(os, "getsid", lambda _pid: 1)
    for odd in ("", "../c7", "c8"):
        monkeypatch.setenv("XDG_SESSION_ID", odd)
        assert find(None, tmp_path).pid == 1


@pytest.mark.parametrize("leader", [0, os.getpid()], ids=["none", "ours"])
def test_a_session_that_is_only_ours_is_none(leader: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_SESSION_ID", "")
    monkeypatch.setattr(os, "getsid", lambda _pid: leader)
    with pytest.raises(UsageError, match="no session that outlives it") as caught:
        find(None, tmp_path)
    assert "--owner PID" in str(caught.value.problems[0].hint)


def test_a_process_is_its_pid_and_its_start() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        owner = find(other.pid)
        assert owner.lives
        assert not owners.Owner(owner.pid, owner.started + 1).lives
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert not owner.lives  # a zombie has ended
        with pytest.raises(UsageError, match="no such process"):
            find(other.pid)


def test_guests_of_this_machine_and_of_its_vms_can_end_with_a_session() -> None:
    wanted = [
        Desired(VM, "qemu", {"lxd": True, **SESSION}),
        Desired(WEB, "lxd/vm", SESSION),
        Desired(ResourceId("Container", "home"), "lxd/local", SESSION),
        Desired(ResourceId("Container", "stays"), "lxd/local", {}),
        Desired(ResourceId("Volume", "v"), "lxd/local", SESSION),
    ]
    found = guests({one.id: one for one in wanted})
    home = Bound(ResourceId("Container", "home"), "lxd/local")
    assert found == [home, Bound(WEB, "lxd/vm", "vm"), Bound(VM, "qemu")]


def test_guests_elsewhere_cannot() -> None:
    with pytest.raises(UsageError, match="of this machine, and of its VMs"):
        guests({WEB: Desired(WEB, "lxd/far", SESSION)})


def test_guests_are_given_away_only_to_somebody_who_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path))
    wanted = {WEB: Desired(WEB, "lxd/local", SESSION)}
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as one,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other,
    ):
        first = find(one.pid)
        first.folder.mkdir(parents=True)
        with companions.hold(first.folder / "alive", "a test", "keeper"):
            owners.keep(wanted, [WEB], "test", one.pid)
            owners.keep(wanted, [WEB], "test", one.pid)
            assert owners.bound_to(first.folder, "test") == [Bound(WEB, "lxd/local")]
            monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
            with pytest.raises(FileNotFoundError):
                owners.keep(wanted, [WEB], "test", other.pid)
            assert owners.bound_to(first.folder, "test") == [Bound(WEB, "lxd/local")]


def test_guests_of_a_backend_that_keeps_silent_have_not_ended() -> None:
    silent = Problem("no answer")
    world = World(
        {"lxd/local": Snapshot("lxd/local", 0.0, {}, silent), "lxd/vm": Snapshot("lxd/vm", 0.0, {}, silent),
         "qemu": Snapshot("qemu", 0.0, {})}
    )  # fmt: skip
    local, inside, below = Bound(WEB, "lxd/local"), Bound(WEB, "lxd/vm", "vm"), Bound(WEB, "lxd/off", "off")
    assert unknown(world, [local, inside, below, Bound(VM, "qemu")], ()) == [local, inside]
    assert unknown(world, [inside], {"vm"}) == []
