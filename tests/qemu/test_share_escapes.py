"""A guest's root against the host: it sees the shared folder and nothing else, and writes only where it may."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from reconciler.model import Verb
from tests.qemu.test_shares import folder, is_running, with_share
from tests.support.qemu import Lab, share

__all__ = ["folder"]


@pytest.fixture
def linux(lasting: Lab) -> Lab:
    """One guest for all: each test begins by bringing it to where it wants it."""
    return lasting


def test_what_is_read_only_cannot_be_written_by_the_guests_root(linux: Lab, folder: Path) -> None:
    (folder / "tool").write_text("#!/bin/sh\n")
    linux.converge(with_share(linux, folder, read_only=True))
    before = {path.name: (path.stat().st_mode, path.read_bytes()) for path in folder.iterdir()}
    # Its own mount flag is the guest's to take away; a second mount never had it.
    linux.inside("mount", "-o", "remount,rw", "/mnt/data")
    linux.inside("sh", "-c", "mkdir /mnt/second && mount -t virtiofs data /mnt/second")
    for place in ("/mnt/data", "/mnt/second"):
        assert " rw," in linux.inside("sh", "-c", f"grep ' {place} ' /proc/mounts")
        for attempt in (
            f"echo evil >{place}/new",
            f"echo evil >>{place}/hello",
            f"echo evil | dd of={place}/hello conv=notrunc",
            f"mkdir {place}/folder",
            f"mknod {place}/disk b 254 0",
            f"mkfifo {place}/pipe",
            f"ln -s /etc/passwd {place}/link",
            f"ln {place}/hello {place}/other",
            f"mv {place}/hello {place}/moved",
            f"rm {place}/hello",
            f"chmod 4777 {place}/tool",
            f"chown 1:1 {place}/tool",
            f"touch -t 200001010000 {place}/hello",
            f"truncate -s 0 {place}/hello",
        ):
            done = linux.ask("sh", "-c", attempt)
            assert done.code != 0 and b"Read-only file system" in done.err, (attempt, done)
    linux.inside("sh", "-c", "umount /mnt/second && rmdir /mnt/second")
    assert before == {path.name: (path.stat().st_mode, path.read_bytes()) for path in folder.iterdir()}


def test_nothing_outside_of_the_folder_is_reached(linux: Lab, folder: Path) -> None:
    outside = folder.with_name("outside")
    outside.mkdir()
    (outside / "secret").write_text("of the host\n")
    (folder / "shadow").symlink_to("/etc/shadow")
    (folder / "etc").symlink_to("/etc")
    (folder / "up").symlink_to("..")
    (folder / "aside").symlink_to("../outside/secret")
    (folder / "exact").symlink_to(outside / "secret")
    linux.converge(with_share(linux, folder))
    guests_own = linux.inside("cat", "/etc/shadow")
    assert guests_own != Path("/etc/shadow").read_text().strip()
    assert linux.inside("cat", "/mnt/data/shadow") == guests_own
    assert linux.inside("cat", "/mnt/data/etc/shadow") == guests_own
    assert linux.inside("readlink", "/mnt/data/shadow") == "/etc/shadow"
    assert linux.inside("ls", "/mnt/data/up") == linux.inside("ls", "/mnt/data/..") == "data"
    for path in ("aside", "exact", "../outside/secret", "up/outside/secret"):
        assert b"No such file" in linux.ask("cat", f"/mnt/data/{path}").err, path
    # What the guest puts there is a link of the guest's, too.
    linux.inside("sh", "-c", "ln -s /etc/hostname /mnt/data/own && echo of the guest >/etc/hostname")
    linux.inside("sh", "-c", "echo written >/mnt/data/own")
    assert linux.inside("cat", "/etc/hostname") == "written" and "written" not in Path("/etc/hostname").read_text()


def test_the_daemon_itself_is_shut_in(linux: Lab, folder: Path) -> None:
    linux.converge(with_share(linux, folder, read_only=True))
    pids = linux.servers()
    assert len(pids) == 2
    served = max(pids)
    root = Path(f"/proc/{served}/root")
    assert os.stat(root).st_ino == folder.stat().st_ino and sorted(os.listdir(root)) == ["hello"]
    for pid in pids:
        assert os.stat(f"/proc/{pid}/ns/mnt").st_ino != os.stat("/proc/self/ns/mnt").st_ino
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{served}/status").read_text().splitlines())
    able = int(status["CapEff"], 16)
    for number in (16, 17, 19, 21, 24, 25, 27, 31):  # module, rawio, ptrace, admin, resource, time, mknod, setfcap
        assert not able >> number & 1, number
    assert status["Seccomp"] == "2"
    (line,) = Path(f"/proc/{served}/mountinfo").read_text().splitlines()[:1]
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
    held = [os.readlink(f"/proc/{pid}/fd/{one}") for pid in pids for one in os.listdir(f"/proc/{pid}/fd")]
    assert str(folder) not in held
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()


def test_what_the_guest_leaves_is_no_trap_for_the_host(linux: Lab, folder: Path) -> None:
    linux.converge(with_share(linux, folder))
    for kind in ("b 254 0", "c 1 1"):
        done = linux.ask("sh", "-c", f"mknod /mnt/data/node {kind}")
        assert done.code != 0 and b"not permitted" in done.err, done
    linux.inside("sh", "-c", "cp /bin/busybox /mnt/data && chmod 4755 /mnt/data/busybox")
    # Nobody in the guest becomes root by what lies there.
    assert linux.inside("su", "-s", "/bin/sh", "nobody", "-c", "/mnt/data/busybox id -u") == "65534"
    assert not any(stat.S_ISBLK(path.lstat().st_mode) for path in folder.iterdir())


def test_what_is_taken_back_is_gone_even_when_it_is_in_use(linux: Lab, folder: Path) -> None:
    linux.converge(with_share(linux, folder))
    boot, pids = linux.boot_id(), linux.daemons()
    writer = (
        "exec 3>>/mnt/data/log; cd /mnt/data; echo $$ >/run/writer; while echo x >&3; do usleep 50000; done; echo end"
    )
    linux.inside("sh", "-c", f"(sh -c '{writer}' >/run/said 2>&1 </dev/null) & until [ -s /mnt/data/log ]; do :; done")
    assert linux.converge(linux.busybox()) == [Verb.UPDATE]
    assert not any(is_running(pid) for pid in pids)
    size = (folder / "log").stat().st_size
    time.sleep(0.5)
    assert (folder / "log").stat().st_size == size
    linux.inside("sh", "-c", "until tail -n1 /run/said | grep -q end; do usleep 50000; done")
    assert linux.ask("sh", "-c", "ls /proc/$(cat /run/writer)/cwd/").out == b""
    assert linux.boot_id() == boot


def test_a_folder_that_is_renamed_under_it_takes_the_guest_nowhere(linux: Lab, folder: Path) -> None:
    want = with_share(linux, folder)
    linux.converge(want)
    away = folder.with_name("away")
    folder.rename(away)
    folder.symlink_to("/etc")
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"
    assert linux.inside("ls", "/mnt/data") == "hello"
    assert linux.verbs(want) == [Verb.UPDATE]
    problem = linux.fail(want)
    assert "symbolic link" in problem.summary and str(folder) in problem.summary
    assert linux.inside("ls", "/mnt/data") == "hello"
    folder.unlink()
    away.rename(folder)
    linux.converge(want)
    assert linux.inside("cat", "/mnt/data/hello") == "from the host"


@pytest.mark.parametrize("way", ["itself", "above"])
def test_a_source_that_a_link_leads_to_is_refused_at_birth(lab: Lab, folder: Path, way: str) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder if way == "itself" else folder.parent)
    source = link if way == "itself" else link / folder.name
    problem = lab.fail(lab.idle(shares={"data": share(source)}))
    assert "a symbolic link is on the way" in problem.summary and problem.hint
