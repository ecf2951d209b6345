"""Folders of the host in running guests: there at once, gone at once, there again after whatever happened."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.backends.qemu.shares import program
from reconciler.model import Change, Desired, Effect, Power, ResourceId, Verb
from reconciler.problems import BackendError
from tests.qemu.test_crashes import EVERY, MOST, die_at
from tests.support.qemu import MIB, Lab, holders, remains, share

VM = ResourceId("VirtualMachine", "vm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the host with a file in it."""
    path = tmp_path / "shared"
    path.mkdir()
    (path / "hello").write_text("from the host\n")
    return path


def with_share(lab: Lab, folder: Path, path: str = "/mnt/data", read_only: bool = False) -> Desired:
    return lab.busybox(shares={"data": share(folder, path, read_only)})


def kill(pids: list[int]) -> None:
    handles = [os.pidfd_open(pid) for pid in pids]
    for handle in handles:
        with suppress(ProcessLookupError):  # it has ended with the one before
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
    end(pids)


def end(pids: list[int]) -> None:
    """Wait until none of them is there any more."""
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def effects(changes: tuple[Change, ...]) -> set[Effect]:
    return {change.effect for change in changes}


def test_it_comes_and_goes_under_a_guest_that_runs(linux: Lab, folder: Path) -> None:
    linux.converge(linux.busybox())
    boot, before = linux.boot_id(), linux.look().room
    want = with_share(linux, folder)
    (change,) = linux.changes(want)
    assert (change.op, change.path, change.effect) == ("add", ("shares", "data"), Effect.LIVE)
    assert linux.converge(want) == [Verb.UPDATE]
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"
    linux.inside("sh", "-c", "echo from the guest >/mnt/data/answer")
    assert (folder / "answer").read_text() == "from the guest\n"
    options = linux.inside("sh", "-c", "grep ' /mnt/data virtiofs ' /proc/mounts").split()[3].split(",")
    assert {"rw", "nosuid", "nodev"} <= set(options)
    assert before is not None and linux.look().room == before - 1
    pids = linux.daemons()
    assert pids

    second = folder.with_name("second")
    second.mkdir()
    both = linux.busybox(shares={"data": share(folder), "a" * 40: share(second, "/srv/second/")})
    linux.converge(both)
    linux.inside("touch", "/srv/second/here")
    assert (second / "here").exists() and linux.daemons() == pids

    moved = linux.busybox(shares={"data": share(folder, "/home/data")})
    assert effects(linux.changes(moved)) == {Effect.LIVE}
    linux.converge(moved)
    assert linux.inside("cat", "/home/data/hello") == "from the host"
    assert linux.inside("ls", "/mnt/data", "/srv/second") == "/mnt/data:\n\n/srv/second:"

    assert linux.converge(linux.busybox()) == [Verb.UPDATE]
    assert "virtiofs" not in linux.inside("cat", "/proc/mounts")
    assert not any(is_running(pid) for pid in pids)
    assert not (linux.folder().path / "shares" / "data").exists()
    assert linux.look().room == before and linux.boot_id() == boot


def test_it_is_there_when_the_guest_boots_and_boots_again(linux: Lab, folder: Path) -> None:
    want = with_share(linux, folder)
    assert linux.converge(want) == [Verb.CREATE]
    boot, pids = linux.boot_id(), linux.daemons()
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"
    linux.backend.power(VM, "restart", False, 120.0, lambda _: None)
    assert linux.boot_id() != boot and linux.verbs(want) == [Verb.NOOP]
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"
    assert not any(is_running(pid) for pid in pids)
    linux.converge(linux.busybox(shares={"data": share(folder)}, power="stopped"))
    assert holders(linux.state) == [] and not (linux.folder().path / "shares").exists()


def test_what_the_guest_unmounts_is_mounted_again(linux: Lab, folder: Path) -> None:
    want = with_share(linux, folder)
    linux.converge(want)
    pids = linux.daemons()
    linux.inside("umount", "/mnt/data")
    (change,) = linux.changes(want)
    assert change.path == ("shares", "data", "path") and change.effect is Effect.LIVE
    linux.converge(want)
    assert linux.inside("cat", "/mnt/data/hello") == "from the host" and linux.daemons() == pids


@pytest.mark.parametrize("all_of_it", [False, True])
def test_a_daemon_that_is_killed_is_replaced(linux: Lab, folder: Path, all_of_it: bool) -> None:
    want = with_share(linux, folder)
    linux.converge(want)
    boot, pids = linux.boot_id(), linux.daemons() if all_of_it else linux.servers()
    kill(pids)
    assert linux.verbs(want) == [Verb.UPDATE] and effects(linux.changes(want)) == {Effect.LIVE}
    linux.converge(want)
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"
    assert linux.boot_id() == boot and linux.daemons() and not set(linux.daemons()) & set(pids)


def test_a_guest_that_waits_for_a_dead_daemon_is_answered(linux: Lab, folder: Path) -> None:
    want = with_share(linux, folder)
    linux.converge(want)
    boot, pids = linux.boot_id(), linux.servers()
    # Asks all the time, so that something is under way when the daemon goes, and has files open there.
    x = "/mnt/data/x"
    asks = f"exec 3</mnt/data/hello; while stat -f /mnt/data && touch {x}; do :; done; echo end"
    linux.inside("sh", "-c", f"(sh -c '{asks}' >/run/said 2>/run/failed </dev/null) & until [ -e {x} ]; do :; done")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    linux.inside("sleep", "1")
    kill(pids)
    linux.inside("sh", "-c", "until tail -n1 /run/said | grep -q end; do usleep 50000; done")
    assert "Input/output error" in linux.inside("cat", "/run/failed")
    assert linux.verbs(want) == [Verb.UPDATE]
    linux.converge(want)
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"
    assert linux.boot_id() == boot and linux.servers() and not set(linux.daemons()) & set(pids)


@pytest.mark.proof
def test_it_goes_along_with_a_guest_that_grows_and_boots_by_itself(linux: Lab, folder: Path) -> None:
    def sized(size: int) -> Desired:
        return linux.busybox(memory={"size": size * MIB, "max": 512 * MIB}, shares={"data": share(folder)})

    linux.converge(sized(256))
    boot, pids = linux.boot_id(), linux.daemons()
    (folder / "big").write_bytes(b"\7" * 4 * MIB)
    linux.converge(sized(384))
    linux.inside("sh", "-c", "mkdir /run/new && mount -t virtiofs data /run/new && cmp /run/new/big /run/new/big")
    assert linux.inside("sh", "-c", "tail -c 4 /run/new/big | od -An -tx1") == "07 07 07 07"
    linux.ask("sh", "-c", "(sleep 1; reboot -f) </dev/null >/dev/null 2>&1 &")
    assert await_boot(linux, boot) and linux.verbs(sized(384)) == [Verb.UPDATE]
    linux.converge(sized(384))
    assert linux.inside("cat", "/mnt/data/hello") == "from the host" and linux.daemons() == pids
    kill(linux.servers())
    assert linux.ask("cat", "/mnt/data/big").code != 0
    linux.converge(sized(384))
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"


def await_boot(lab: Lab, before: str) -> bool:
    """Whether the guest has booted anew within two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if lab.boot_id() != before:
                return True
        except BackendError:
            time.sleep(0.2)
    return False


def test_no_daemon_outlives_its_qemu(linux: Lab, folder: Path) -> None:
    want = with_share(linux, folder)
    linux.converge(want)
    pids, boot = linux.daemons(), linux.boot_id()
    linux.signal(signal.SIGKILL)
    end(pids)
    linux.converge(want)
    assert linux.inside("cat", "/mnt/data/hello") == "from the host" and linux.boot_id() != boot


def test_a_daemon_that_hangs_is_ended_by_force(linux: Lab, folder: Path) -> None:
    want = with_share(linux, folder)
    linux.converge(want)
    pids = linux.daemons()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    linux.signal(signal.SIGKILL)
    linux.converge(linux.busybox(shares={"data": share(folder)}, power="stopped"))
    end(pids)  # the lock goes a moment before the process does
    assert holders(linux.state) == []


def test_writing_is_allowed_and_forbidden_while_it_runs(linux: Lab, folder: Path) -> None:
    linux.converge(with_share(linux, folder))
    boot = linux.boot_id()
    linux.inside("touch", "/mnt/data/first")
    read_only = with_share(linux, folder, read_only=True)
    assert effects(linux.changes(read_only)) == {Effect.LIVE}
    linux.converge(read_only)
    assert linux.ask("touch", "/mnt/data/second").code != 0 and not (folder / "second").exists()
    linux.converge(with_share(linux, folder))
    linux.inside("touch", "/mnt/data/third")
    assert (folder / "third").exists() and linux.boot_id() == boot


def test_another_folder_under_the_same_path_is_noticed(linux: Lab, folder: Path) -> None:
    want = with_share(linux, folder)
    linux.converge(want)
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    (folder / "hello").write_text("from the new one\n")
    assert linux.verbs(want) == [Verb.UPDATE]
    linux.converge(want)
    assert linux.inside("cat", "/mnt/data/hello") == "from the new one"


def test_without_an_agent_the_guest_is_told_how_to_mount_it(linux: Lab, folder: Path) -> None:
    want = linux.busybox(
        guestAgent=False, ready={"log": "ready", "timeout": 160}, shares={"data": share(folder, read_only=True)}
    )
    linux.converge(want)
    (condition,) = [one for one in linux.look().conditions if one.type == "Mounted"]
    assert (condition.status, condition.reason) == (None, "NoAgent")
    assert "mount -t virtiofs -o nosuid,nodev,ro data /mnt/data" in condition.message
    linux.converge(linux.busybox(guestAgent=False, ready={"log": "ready", "timeout": 160}))
    assert linux.look().conditions == () and holders(linux.state) == [linux.process().pid]


def test_a_guest_that_cannot_mount_it_is_named(linux: Lab, folder: Path) -> None:
    linux.converge(linux.busybox())
    linux.inside("sh", "-c", "mkdir /real && ln -s /real /link")
    problem = linux.fail(with_share(linux, folder, "/link/data"))
    assert "/link/data leads to /real/data" in problem.summary and problem.hint == "say path: /real/data"
    linux.converge(with_share(linux, folder, "/real/data"))
    assert linux.inside("cat", "/real/data/hello") == "from the host"


@EVERY
@pytest.mark.parametrize("moment", ["birth", "life"])
def test_whatever_a_crash_leaves_is_finished_or_taken_away(lab: Lab, folder: Path, moment: str, every: int) -> None:
    want = lab.idle(shares={"data": share(folder)})
    for boundary in range(1, MOST, every):
        if moment == "life":
            lab.converge(lab.idle())
        died = die_at(boundary, lambda: lab.apply(want))
        lab.converge(want)
        serving = lab.daemons()
        assert serving and sorted(holders(lab.state)) == sorted([lab.process().pid, *serving])
        lab.delete(VM)
        assert remains(lab.state) == []
        if not died:
            assert boundary > 10
            return
    raise AssertionError("an apply without an end")


def test_a_source_that_is_refused_leaves_the_guest_as_it_is(lab: Lab, folder: Path) -> None:
    lab.converge(lab.idle())
    (folder / "link").symlink_to(folder)
    (folder / "inner").mkdir()
    words = {
        folder / "nothing": "does not exist",
        folder / "hello": "not a folder",
        folder / "link": "symbolic link",
        folder / "link" / "inner": "symbolic link",
        Path("/"): "the whole host",
        lab.state: "where the machines themselves are kept",
        lab.state.parent: "where the machines themselves are kept",
        lab.folder().path / "disks": "does not exist",
    }
    for source, said in words.items():
        problem = lab.fail(lab.idle(shares={"data": share(source)}))
        assert said in problem.summary and problem.summary.startswith("shares.data: "), problem
    for path in ("/", "/etc", "/proc/1", "/dev/shm/", "/usr"):
        assert "the guest's own" in lab.fail(lab.idle(shares={"data": share(folder, path)})).summary
    assert lab.look().power is Power.RUNNING and lab.folder().path.joinpath("shares").exists() is False


def test_where_virtiofsd_is_missing_9p_is_there_from_birth(
    linux: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "PLACES", ())
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    linux.converge(linux.busybox())
    boot = linux.boot_id()
    want = with_share(linux, folder, read_only=True)
    (change,) = linux.changes(want)
    assert change.effect is Effect.RESTART and "virtiofsd is missing" in change.note
    folder.chmod(0o750)
    problem = linux.fail(want)
    assert "may not read" in problem.summary and problem.hint is not None and "virtiofsd" in problem.hint
    assert linux.boot_id() == boot
    folder.chmod(0o755)
    linux.converge(want)
    assert linux.boot_id() != boot and linux.daemons() == []
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"
    linux.inside("mount", "-o", "remount,rw", "/mnt/data")
    assert b"Read-only file system" in linux.ask("touch", "/mnt/data/new").err
    (folder / "shadow").symlink_to("/etc/shadow")
    assert linux.inside("cat", "/mnt/data/shadow") == linux.inside("cat", "/etc/shadow")

    monkeypatch.undo()
    assert linux.changes(with_share(linux, folder))[0].effect is Effect.RESTART
    linux.converge(with_share(linux, folder))
    linux.inside("touch", "/mnt/data/new")
    assert (folder / "new").exists() and linux.daemons()
