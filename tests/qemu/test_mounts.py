"""``Disk.mount`` in a Linux guest that runs: formatted when blank and never else, mounted, grown, unmounted, seen."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.inside import growing, mounts
from reconciler.model import Condition, Desired, Effect, Verb
from reconciler.problems import Refused
from tests.qemu.test_crashes import EVERY
from tests.qemu.test_hotplug import boot_id, but, live, until
from tests.support.qemu import MIB, Lab


def disk(lab: Lab, name: str = "data", size: int = 32 * MIB, **more: Any) -> Desired:
    """A Disk in a raw file."""
    return lab.desired("Disk", name, {"size": size, "format": "raw", "deletionPolicy": "retain", **more})


def with_disks(vm: Desired, *disks: Desired, mount: str | None = None, **more: Any) -> Desired:
    """The VM with these Disks attached, all mounted at the same path if at any."""
    where = {} if mount is None else {"mount": mount}
    attached = {
        one.id.name: {"disk": one.id.name, "format": "raw", "readOnly": False, **where, **more} for one in disks
    }
    return replace(but(vm, disks=attached), needs=tuple(one.id for one in disks))


def file_of(lab: Lab, name: str = "data") -> Path:
    return lab.state / "disks" / f"{name}.raw"


def condition(lab: Lab, type: str) -> Condition | None:
    return next((one for one in lab.look().conditions if one.type == type), None)


def room(lab: Lab, path: str) -> int:
    """How much there is, by the guest's word: MiB."""
    return int(lab.inside("sh", "-c", f"df -m {path} | tail -n1 | awk '{{print $2}}'"))


def table(lab: Lab) -> dict[str, mounts.Mount]:
    return mounts.parse(lab.inside("cat", "/proc/mounts").encode())


def test_a_blank_disk_is_formatted_mounted_and_keeps_its_data(linux: Lab) -> None:
    vm, data = linux.busybox(), disk(linux)
    linux.converge(vm, data)
    before = boot_id(linux)
    live(linux, with_disks(vm, data, mount="/data"))
    there = table(linux)["/data"]
    assert there.type == "ext4"
    assert {"rw", "nosuid", "nodev"} <= there.options
    assert condition(linux, "Mounted") == Condition("Mounted", True, "Mounted", "data at /data")
    linux.inside("sh", "-c", "echo kept >/data/x")
    live(linux, vm)  # detached: and everything is on it, without another sync
    assert b"kept" in file_of(linux).read_bytes()
    assert file_of(linux).read_bytes()[1024 + 58] & 1, "not unmounted cleanly"
    live(linux, with_disks(vm, data, mount="/srv/deep/er"))
    assert linux.inside("cat", "/srv/deep/er/x") == "kept"
    live(linux, with_disks(vm, data, mount="/data"))
    assert set(table(linux)) & {"/data", "/srv/deep/er"} == {"/data"}
    live(linux, with_disks(vm, data))
    assert "/data" not in table(linux)
    live(linux, with_disks(vm, data, mount="/data"))
    assert boot_id(linux) == before
    linux.backend.power(vm.id, "restart", False, 120, lambda _: None)
    assert boot_id(linux) != before
    assert linux.inside("cat", "/data/x") == "kept"
    linux.signal(signal.SIGKILL)
    linux.converge(with_disks(vm, data, mount="/data"))
    assert linux.inside("cat", "/data/x") == "kept"


KINDS = (
    ("dd if=/dev/urandom of=/dev/vda bs=1M count=32", "on it is data of no kind that the guest knows"),
    ("printf x | dd of=/dev/vda bs=1 seek=$((32*1048576-1))", "on it is data of no kind"),
    (
        "printf 'label: gpt\n,8M\n,\n' | sfdisk /dev/vda; mkfs.ext4 -q /dev/vda1; mkfs.ext4 -q /dev/vda2",
        "more than one file system that could be meant: on it is a partition table (gpt) with vda1 ext4, vda2 ext4",
    ),
    ("printf x | dd of=/dev/vda bs=1 seek=$((4*1048576-1))", "on it is data of no kind"),
    ("mkswap /dev/vda", "on it is swap"),
    ("echo label: gpt | sfdisk /dev/vda", "on it is a partition table (gpt) without partitions"),
    ("printf 'label: dos\n,8M\n,\n' | sfdisk /dev/vda", "(dos) with vda1 unknown, vda2 unknown"),
)
"""How something is put on a disk, and what is said of it."""


@pytest.mark.parametrize("kinds", [KINDS[1:3], pytest.param(KINDS, marks=pytest.mark.proof)], ids=["some", "all"])
def test_what_is_on_a_disk_is_never_formatted(linux: Lab, kinds: Sequence[tuple[str, str]]) -> None:
    vm, data = linux.busybox(), disk(linux)
    linux.converge(vm, data)

    def beforehand(script: str) -> bytes:
        """Something is put on it; how the disk is then."""
        live(linux, with_disks(vm, data))
        until(lambda: linux.ask("test", "-b", "/dev/vda").code, 0)
        linux.inside("sh", "-c", f"set -e; dd if=/dev/zero of=/dev/vda bs=1M count=32 2>/dev/null; {script}; sync")
        live(linux, vm)
        return file_of(linux).read_bytes()

    for script, said in kinds:
        found = beforehand(script)
        problem = linux.fail(with_disks(vm, data, mount="/data"))
        assert said in problem.summary
        assert problem.summary.startswith("disks.data.mount: ")
        assert "only blank disks are formatted" in str(problem.hint)
        assert linux.verbs(with_disks(vm, data, mount="/data")) == [Verb.UPDATE]
        live(linux, vm)
        assert file_of(linux).read_bytes() == found
    beforehand("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && echo theirs >/mnt/x && umount /mnt")
    live(linux, with_disks(vm, data, mount="/data"))
    assert linux.inside("cat", "/data/x") == "theirs"


def test_one_partition_is_mounted_and_grows_with_its_disk(linux: Lab) -> None:
    vm, data = linux.busybox(), disk(linux)
    linux.converge(vm, data, with_disks(vm, data))
    for label in ("dos", "gpt"):
        make = f"dd if=/dev/zero of=/dev/vda bs=1M count=1; printf 'label: {label}\n,16M\n' | sfdisk /dev/vda"
        linux.inside(
            "sh",
            "-c",
            f"set -e; {make}; mkfs.ext4 -q /dev/vda1; mount /dev/vda1 /mnt; echo theirs >/mnt/x; umount /mnt",
        )
        uuid = linux.inside("blkid", "/dev/vda1")
        live(linux, with_disks(vm, data, mount="/data"))
        assert table(linux)["/data"].source == "/dev/vda1"
        assert room(linux, "/data") < 16  # the room behind it is not ours to take before the disk has grown
        bigger = disk(linux, size=int(data.spec["size"]) + 32 * MIB)
        assert linux.converge(bigger, with_disks(vm, bigger, mount="/data")) == [Verb.UPDATE, Verb.NOOP]
        assert room(linux, "/data") > int(bigger.spec["size"]) // MIB - 16
        assert linux.inside("cat", "/data/x") == "theirs"
        assert linux.inside("blkid", "/dev/vda1") == uuid
        assert condition(linux, "FileSystemSmaller") is None
        data = bigger
        live(linux, with_disks(vm, data))


def test_a_disk_grows_and_its_file_system_with_it(linux: Lab) -> None:
    vm, data = linux.busybox(), disk(linux)
    want = with_disks(vm, data, mount="/data")
    linux.converge(data, want)
    before, at_first = boot_id(linux), room(linux, "/data")
    data = disk(linux, size=64 * MIB)
    (step,) = [step for step in linux.plan(data, want)[0].steps if step.id == data.id]
    assert step.effect is Effect.LIVE
    linux.converge(data, want)
    assert room(linux, "/data") > at_first + 28
    linux.inside("mv", "/usr/sbin/resize2fs", "/usr/sbin/away")
    data = disk(linux, size=96 * MIB)
    linux.converge(data, want)
    told = condition(linux, "FileSystemSmaller")
    assert told is not None
    assert "data: resize2fs: No such file or directory" in told.message
    linux.inside("away", "/dev/vda")  # by hand
    assert condition(linux, "FileSystemSmaller") is None
    assert boot_id(linux) == before


@pytest.mark.proof
def test_what_did_not_grow_grows_with_the_next_start(linux: Lab) -> None:
    vm, data = linux.busybox(), disk(linux)
    want = with_disks(vm, data, mount="/data")
    linux.converge(data, want)
    at_first = room(linux, "/data")
    linux.inside("rm", "/usr/sbin/resize2fs")
    data = disk(linux, size=64 * MIB)
    linux.converge(data, want)
    assert condition(linux, "FileSystemSmaller") is not None
    linux.backend.power(vm.id, "restart", False, 120, lambda _: None)  # this guest has all its programs again
    assert room(linux, "/data") > at_first + 28
    assert condition(linux, "FileSystemSmaller") is None
    linux.backend.power(vm.id, "stop", True, 20, lambda _: None)
    data = disk(linux, size=96 * MIB)
    linux.converge(data, want)
    assert room(linux, "/data") > at_first + 56
    (shrink,) = [step for step in linux.plan(disk(linux, size=MIB), want)[0].steps if step.id == data.id]
    assert (shrink.verb, shrink.effect) == (Verb.HOLD, Effect.IMPOSSIBLE)


def test_what_is_in_use_stays_mounted_and_plugged_in(linux: Lab) -> None:
    vm, data = linux.busybox(), disk(linux)
    want = with_disks(vm, data, mount="/data")
    linux.converge(data, want)
    before = boot_id(linux)
    pid = linux.inside("sh", "-c", "exec 3>/data/open; sleep 1000 >/dev/null 2>&1 & echo $!")
    for other in (vm, with_disks(vm, data), with_disks(vm, data, mount="/other"), with_disks(vm, data, readOnly=True)):
        problem = linux.fail(other)
        assert problem.summary == f"/data is in use in the guest by sleep (pid {pid})"
        linux.inside("sh", "-c", "echo still >/data/written; sync")
        assert linux.verbs(other) == [Verb.UPDATE]
    linux.inside("sh", "-c", f"kill {pid}; swapoff -a; mkdir -p /data/below; mount -t tmpfs x /data/below")
    assert "what is mounted at /data/below" in linux.fail(vm).summary
    linux.inside("umount", "/data/below")
    live(linux, vm)
    live(linux, with_disks(vm, data))
    linux.inside("sh", "-c", "until mount -t ext4 /dev/vda /mnt; do usleep 50000; done")
    linux.inside("sh", "-c", "unshare -m sleep 1000 >/dev/null 2>&1 & sleep 1")
    live(linux, with_disks(vm, data, mount="/data"))  # a second place does no harm
    problem = linux.fail(vm)
    assert "mounted where its agent cannot see it" in problem.summary
    linux.inside("killall", "sleep")
    live(linux, vm)
    assert boot_id(linux) == before


@pytest.mark.proof
def test_what_the_guest_does_by_itself_is_seen(linux: Lab) -> None:
    vm, data = linux.busybox(), disk(linux)
    want = with_disks(vm, data, mount="/data")
    linux.converge(data, want)
    linux.inside("sh", "-c", "echo kept >/data/x; umount /data")
    assert [change.field for change in linux.changes(want)] == ["disks.data.mount"]
    missing = condition(linux, "Mounted")
    assert missing is not None
    assert (missing.status, missing.reason) == (False, "NotMounted")
    live(linux, want)
    assert linux.inside("cat", "/data/x") == "kept"
    linux.inside("sh", "-c", "umount /data; mount -t tmpfs theirs /data")
    problem = linux.fail(want)
    assert "disks.data.mount: theirs (tmpfs) is mounted at /data" in problem.summary
    assert table(linux)["/data"].source == "theirs"
    linux.inside("sh", "-c", "umount /data; rmdir /data; mkdir -p /srv/real; ln -s /srv/real /data")
    live(linux, want)  # where a link leads to
    assert linux.inside("cat", "/data/x") == "kept"
    left = but(want, ignore=["disks.data.mount"])
    linux.converge(data, left)
    linux.inside("umount", "/data")
    assert linux.plan(data, left)[0].in_sync


@pytest.mark.proof
def test_without_the_programs_and_without_the_agent(linux: Lab) -> None:
    vm, data = linux.busybox(), disk(linux)
    want = with_disks(vm, data, mount="/data")
    linux.converge(data, vm)
    linux.inside("mv", "/usr/sbin/mkfs.ext4", "/usr/sbin/away")
    problem = linux.fail(want)
    assert problem.summary == "disks.data.mount: it is blank, and the guest has no mkfs.ext4"
    assert "e2fsprogs" in str(problem.hint)
    linux.inside("mv", "/usr/sbin/away", "/usr/sbin/mkfs.ext4")
    linux.converge(data, want)
    linux.inside("sh", "-c", "mv /usr/sbin/qemu-ga /away; (sleep 1; killall qemu-ga) >/dev/null 2>&1 &")
    until(lambda: getattr(condition(linux, "Mounted"), "reason", None), "AgentSilent")
    assert linux.plan(data, want)[0].in_sync  # nobody knows: nothing is done about it
    problem = linux.fail(vm)
    assert "disks.data: whether it is still mounted cannot be told" in problem.summary


def test_a_guest_without_an_agent_mounts_by_itself(lab: Lab) -> None:
    data = disk(lab)
    want = lab.idle(disks={"data": {"disk": "data", "format": "raw", "readOnly": False, "mount": "/data"}})
    lab.converge(data, replace(want, needs=(data.id,)))
    left = condition(lab, "Mounted")
    assert left is not None
    assert (left.status, left.reason) == (None, "NoAgent")
    assert "data at /data" in left.message
    assert not any(file_of(lab).read_bytes())


@pytest.mark.proof
def test_a_blank_disk_that_may_not_be_written_and_two_that_cannot_be_told_apart(linux: Lab) -> None:
    vm = linux.busybox()
    blank, one, two = disk(linux), disk(linux, "a-name-that-is-long-1"), disk(linux, "a-name-that-is-long-2")
    linux.converge(vm, blank, one, two)
    problem = linux.fail(with_disks(vm, blank, mount="/data", readOnly=True))
    assert problem.summary == "disks.data.mount: it is blank, and readOnly: there is nothing to mount"
    assert not any(file_of(linux).read_bytes())
    problem = linux.fail(with_disks(vm, one, two, mount="/data"))
    assert 'the guest has 2 disks with the serial number "a-name-that-is-long-"' in problem.summary
    live(linux, with_disks(vm, blank, mount="/data"))
    linux.inside("sh", "-c", "echo kept >/data/x")
    live(linux, with_disks(vm, blank, mount="/data", readOnly=True))
    assert "ro" in table(linux)["/data"].options
    assert linux.inside("cat", "/data/x") == "kept"
    assert linux.ask("touch", "/data/y").code != 0


def die_in_the_guest(work: Any, turn: int) -> bool:
    """Do the work in a process that is killed while the turn-th command in the guest runs; whether it got that far."""
    child = os.fork()
    if child == 0:
        try:
            turns = iter(range(turn))
            real = Agent._await

            def step(agent: Agent, *given: Any) -> Any:
                if next(turns, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(agent, *given)

            Agent._await = step  # type: ignore[method-assign, assignment]
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.timeout(900)
@EVERY
def test_killed_at_every_command_in_the_guest(linux: Lab, every: int) -> None:
    vm = linux.busybox()
    linux.converge(vm)
    before = boot_id(linux)
    for turn in range(0, 20, every):
        data = disk(linux, f"data{turn}", 8 * MIB)
        linux.converge(data)
        want = with_disks(vm, data, mount="/data")
        died = die_in_the_guest(lambda want=want: linux.apply(want), turn)
        linux.converge(data, want)
        assert table(linux)["/data"].type == "ext4"
        linux.inside("sh", "-c", "echo kept >/data/x")
        bigger = disk(linux, data.id.name, 24 * MIB)
        died |= die_in_the_guest(lambda bigger=bigger: linux.apply(bigger), turn)
        linux.converge(bigger, want)
        assert room(linux, "/data") > 14
        died |= die_in_the_guest(lambda: linux.apply(vm), turn)
        linux.converge(vm)
        assert "/data" not in table(linux)
        assert b"kept" in file_of(linux, data.id.name).read_bytes()
        if not died:
            assert turn > 5
            assert boot_id(linux) == before
            return
    raise AssertionError("an apply without an end")


@pytest.mark.proof
def test_a_guest_that_dies_while_it_formats(linux: Lab) -> None:
    """Neither blank nor a file system: only because we know that it was blank, it is formatted again."""
    vm, data = linux.busybox(), disk(linux, size=256 * MIB)
    linux.converge(vm, data)
    want = with_disks(vm, data, mount="/data")
    half = r"printf '#!/bin/sh\necho half | dd of=$4; exit 3\n' >/usr/sbin/mkfs.ext4; chmod 755 /usr/sbin/mkfs.ext4"
    linux.inside("sh", "-c", f"rm /usr/sbin/mkfs.ext4; {half}")
    problem = linux.fail(want)
    assert "disks.data.mount: the guest cannot format it" in problem.summary
    assert linux.record().mounted["disk-data"]["formatting"] is True
    linux.signal(signal.SIGKILL)
    assert file_of(linux).read_bytes()[:4] == b"half"
    linux.converge(data, want)
    assert table(linux)["/data"].type == "ext4"
    live(linux, vm)
    assert linux.record().mounted == {}


def test_one_disk_has_one_owner(lab: Lab) -> None:
    data = disk(lab)
    lab.converge(data)
    attached = {"disk": "data", "format": "raw", "readOnly": False}
    lab.converge(replace(lab.idle("one", disks={"mine": attached}), needs=(data.id,)))
    link = lab.state / "another-name.raw"
    os.link(file_of(lab), link)
    raw = {"path": str(link), "format": "raw", "readOnly": False}
    by_mine = "is in use by VirtualMachine/one (disks.mine)"
    for want in (
        lab.idle("two", disks={"theirs": raw}),
        lab.idle("two", disks={"theirs": {**raw, "readOnly": True}}),
        replace(lab.idle("two", disks={"theirs": attached}), needs=(data.id,)),
    ):
        problem = lab.fail(want)
        assert problem.summary.startswith("disks.theirs: ")
        assert by_mine in problem.summary
        assert problem.subject == "VirtualMachine/two"
    lab.converge(lab.idle("two"))
    assert by_mine in lab.fail(lab.idle("two", disks={"theirs": raw})).summary
    assert lab.look("one").conditions == ()


@pytest.mark.parametrize("path", ["/", "//", "/proc", "/proc/x", "/dev/", "/sys/fs", "/usr", "/etc/", "/lib64", "/var"])
def test_never_over_the_guests_own(path: str, lab: Lab) -> None:
    want = lab.idle(
        disks={"data": {"disk": "data", "format": "raw", "readOnly": False, "mount": path}}, guestAgent=True
    )
    data = disk(lab)
    problem = lab.fail(data, replace(want, needs=(data.id,)))
    assert problem.summary == f"disks.data.mount: {path} is the guest's own"
    with pytest.raises(Refused):
        mounts.check_path(path, "x", "y")


@pytest.mark.parametrize("path", ["/data", "/usr/local", "/var/lib/x", "/home", "/run/x", "/library", "/devices"])
def test_everywhere_else(path: str) -> None:
    mounts.check_path(path, "x", "y")


def test_the_kernels_table() -> None:
    said = b"/dev/vda /a\\040b\\134c ext4 rw,nosuid 0 0\nover /a\\040b\\134c tmpfs ro 0 0\n\nodd line\n"
    said += b"share /s virtiofs rw 0 0\n"
    assert mounts.parse(said) == {
        "/a b\\c": mounts.Mount("over", "tmpfs", frozenset({"ro"})),
        "/s": mounts.Mount("share", "virtiofs", frozenset({"rw"})),
    }


def test_sizes_of_file_systems() -> None:
    head = bytearray(growing.HEAD)
    assert growing.size_of(bytes(head)) is None
    assert growing.size_of(b"") is None
    xfs = bytearray(head)
    xfs[:16] = b"XFSB" + (4096).to_bytes(4, "big") + (1000).to_bytes(8, "big")
    assert growing.size_of(bytes(xfs)) == 4096 * 1000
    btrfs = bytearray(head)
    btrfs[0x10040:0x10048] = b"_BHRfS_M"
    btrfs[0x10070:0x10078] = (12345678).to_bytes(8, "little")
    assert growing.size_of(bytes(btrfs)) == 12345678


def test_a_partition_table_without_an_end() -> None:
    dump = "label: gpt\nlast-lba: 65502\n\n/dev/vda1 : start=        2048, size=       32768, type=X, uuid=Y\n"
    assert growing.without_end(dump, "vda1") == "label: gpt\n\n/dev/vda1 : start=        2048, type=X, uuid=Y\n"
    two = "/dev/vda1 : start= 1, size= 2, type=83\n/dev/vda2 : start= 3, size= 4\n"
    assert growing.without_end(two, "vda2") == "/dev/vda1 : start= 1, size= 2, type=83\n/dev/vda2 : start= 3\n"
