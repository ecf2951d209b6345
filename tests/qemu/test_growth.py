"""File systems other than our own: made by somebody in the guest, they grow with their disk all the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.backends.images.busybox.kernel import release_of
from reconciler.backends.images.busybox.modules import WANTED, PackageModules, module_tree
from reconciler.backends.images.busybox.parts import kernel_package
from reconciler.backends.images.busybox.programs import program_files
from reconciler.backends.images.packages import contents, workshop
from reconciler.backends.images.tree import write_tarball
from reconciler.model import Desired, Effect
from tests.qemu.test_hotplug import boot_id, but, live
from tests.qemu.test_mounts import condition, disk, room, table, with_disks
from tests.support.qemu import MIB, Lab, share

PROGRAMS = {
    "usr/sbin/mkfs.xfs": "xfsprogs",
    "usr/sbin/xfs_growfs": "xfsprogs",
    "usr/sbin/mkfs.btrfs": "btrfs-progs",
    "usr/bin/btrfs": "btrfs-progs",
}
SIZE = 384 * MIB
"""Neither of the two is made any smaller than some 300 MiB."""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what a busybox guest lacks for them: the distribution's own programs and modules, packed."""
    folder = tmp_path_factory.mktemp("tools")
    with workshop(tmp_path_factory.mktemp("packages"), print) as packages:
        with contents(packages.download(kernel_package(packages))) as archive:
            modules = PackageModules(archive)
            release = release_of(modules.read_one(re.compile(r"boot/vmlinuz-.+")) or b"")
            assert release is not None
            tree = module_tree(modules, release, [*WANTED, ("xfs", "btrfs")])
        tree |= program_files(packages, print, PROGRAMS)
    write_tarball(folder / "tools.tar.gz", tree)
    yield folder


def with_tools(lab: Lab, tools: Path) -> Desired:
    """A guest that has them."""
    vm = lab.busybox(memory={"size": 512 * MIB}, shares={"tools": share(tools, "/mnt/tools", read_only=True)})
    lab.converge(vm)
    lab.inside("sh", "-c", "cd / && tar xzf /mnt/tools/tools.tar.gz && modprobe xfs && modprobe btrfs")
    without = but(vm, shares=None)
    live(lab, without)
    return without


@pytest.mark.proof
def test_xfs_and_btrfs_grow_while_they_are_mounted(linux: Lab, tools: Path) -> None:
    vm = with_tools(linux, tools)
    before = boot_id(linux)
    for type in ("xfs", "btrfs"):
        data = disk(linux, type, size=SIZE)
        linux.converge(data, with_disks(vm, data))
        linux.inside(
            "sh", "-c", f"mkfs.{type} -q /dev/vda && mount /dev/vda /mnt && echo theirs >/mnt/x && umount /mnt"
        )
        want = with_disks(vm, data, mount="/data")
        live(linux, want)
        assert (table(linux)["/data"].type, linux.inside("cat", "/data/x")) == (type, "theirs")
        at_first = room(linux, "/data")
        data = disk(linux, type, size=SIZE + 256 * MIB)
        (step,) = [step for step in linux.plan(data, want)[0].steps if step.id == data.id]
        assert step.effect is Effect.LIVE
        linux.converge(data, want)
        assert room(linux, "/data") > at_first + 200
        assert linux.inside("cat", "/data/x") == "theirs"
        assert condition(linux, "FileSystemSmaller") is None
        live(linux, vm)
    assert boot_id(linux) == before
