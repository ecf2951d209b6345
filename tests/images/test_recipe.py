"""Recipe ``busybox``: always the same bytes, only what was asked for, and parts from wherever they are to be had."""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from reconciler.backends.images import MachineImage, container_image, elf, machine_image, size
from reconciler.backends.images.busybox import kernel, userland
from reconciler.backends.images.cache import Cache
from reconciler.backends.images.packages import workshop
from reconciler.backends.images.tarscan import scan
from reconciler.backends.images.tree import EPOCH, Tree, file, folder, link, with_parents, write_cpio, write_tarball
from reconciler.problems import Refused, Unreachable

RECIPE = {"build": {"recipe": "busybox"}}


def quiet(_: str) -> None:
    """Nobody looks at the progress."""


def with_files(*files: dict[str, object]) -> dict[str, object]:
    """The recipe with files of our own."""
    return {"build": {"recipe": "busybox", "files": list(files)}}


def entries(state: Path, prefix: str) -> list[Path]:
    """The cache entries of a kind."""
    return sorted((state / "images/entries").glob(f"{prefix}-*"))


MAKE = """
import os, sys
from pathlib import Path
from reconciler.backends.images import container_image
os.umask(int(sys.argv[2], 8))
print(container_image({"build": {"recipe": "busybox"}}, Path(sys.argv[1]), lambda words: None).fingerprint)
"""


@pytest.mark.parametrize(
    "surroundings", [{"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "1"}, {"LC_ALL": "C", "PYTHONHASHSEED": "2"}]
)
def test_the_same_bytes_in_any_surroundings(state: Path, surroundings: dict[str, str]) -> None:
    here = container_image(RECIPE, state, quiet).fingerprint
    command = (sys.executable, "-c", MAKE, state / "other", "077" if "TZ" in surroundings else "0")
    answer = subprocess.run(command, env={**os.environ, **surroundings}, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == here


def test_what_is_in_a_container_image(state: Path) -> None:
    image = container_image(with_files({"path": "/srv/www/index.html", "content": "hi", "mode": "0600"}), state, quiet)
    assert image.size < 1_200_000
    found = scan(image.metadata, "ours", "unified")
    assert found.metadata and found.rootfs
    with tarfile.open(image.metadata) as archive:
        members = {entry.name: entry for entry in archive}
        page = archive.extractfile("rootfs/srv/www/index.html")
        assert page is not None
        assert page.read() == b"hi"
    assert list(members) == sorted(members)
    assert {(entry.mtime, entry.uid, entry.gid) for entry in members.values()} == {(EPOCH, 0, 0)}
    assert members["rootfs/srv/www/index.html"].mode == 0o600
    assert members["rootfs/sbin/init"].mode == 0o755
    assert members["rootfs/tmp"].mode == 0o1777
    assert members["rootfs/etc/shadow"].mode == 0o600
    assert members["rootfs/bin/ls"].linkname == "/bin/busybox"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/../../x", 'without ".."'),
        ("/", 'without ".."'),
        ("", 'without ".."'),
        ("/a//b", 'without ".."'),
        ("/./x", 'without ".."'),
        ("/etc", "is a folder"),
        ("/tmp", "is a folder"),
        ("/var/run/x", "/var/run is not a folder"),
        ("/bin/busybox/x", "/bin/busybox is not a folder"),
        ("/bin/ls/x", "/bin/ls is not a folder"),
    ],
)
def test_files_that_cannot_be_there(state: Path, path: str, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        container_image(with_files({"path": path, "content": "x"}), state, quiet)
    assert size(state) == 0


def test_files_may_not_need_each_other_as_folder(state: Path) -> None:
    both = with_files({"path": "/srv/a", "content": "x"}, {"path": "/srv/a/b", "content": "y"})
    with pytest.raises(Refused, match="/srv/a is not a folder"):
        container_image(both, state, quiet)


NAMES = some.lists(some.sampled_from(["a", "b", "sub"]), min_size=1, max_size=3).map("/".join)
NODES = some.one_of(
    some.builds(file, some.binary(max_size=20), some.sampled_from([0o600, 0o755])),
    some.just(folder(0o700)),
    some.builds(link, some.sampled_from(["a", "/x"])),
)


def possible(tree: Tree) -> bool:
    """Whether everything that has something below it is a folder."""
    whole = with_parents(tree)
    inner = {str(parent) for path in whole for parent in Path(path).parents}
    return all(stat.S_ISDIR(node.mode) for path, node in whole.items() if path in inner)


@settings(deadline=None, max_examples=40)
@given(some.dictionaries(NAMES, NODES, max_size=5).filter(possible))
def test_cpio_as_the_real_one_reads_it(tree: Tree) -> None:
    packed = io.BytesIO()
    write_cpio(packed, tree)
    assert len(packed.getvalue()) % 512 == 0
    with tempfile.TemporaryDirectory(prefix="images-") as place:
        subprocess.run(("cpio", "-idm", "--quiet"), cwd=place, input=packed.getvalue(), check=True)
        found = {str(path.relative_to(place)): path for path in Path(place).rglob("*")}
        whole = with_parents(tree)
        assert found.keys() == whole.keys()
        for name, node in whole.items():
            status = found[name].lstat()
            assert status.st_mode == node.mode
            if stat.S_ISREG(node.mode):
                assert found[name].read_bytes() == node.data
            elif stat.S_ISLNK(node.mode):
                assert os.readlink(found[name]) == node.data.decode()


@settings(deadline=None, max_examples=40)
@given(some.dictionaries(NAMES, NODES, max_size=5).filter(possible))
def test_a_tarball_does_not_depend_on_order(tree: Tree) -> None:
    with tempfile.TemporaryDirectory(prefix="images-") as place:
        one, two = Path(place, "one"), Path(place, "two")
        write_tarball(one, tree)
        write_tarball(two, dict(reversed(tree.items())))
        assert one.read_bytes() == two.read_bytes()


def test_elf() -> None:
    busybox, dynamic = Path("/bin/busybox").read_bytes(), Path("/usr/bin/qemu-img").read_bytes()
    assert elf.is_static(busybox)
    assert not elf.is_static(dynamic)
    assert not elf.is_static(b"#!/bin/sh\n")
    assert not elf.is_static(busybox[:70])
    assert elf.interpreter(dynamic) == "/lib64/ld-linux-x86-64.so.2"
    assert elf.interpreter(busybox) is None
    said = subprocess.run(("ldd", "/usr/bin/qemu-img"), capture_output=True, text=True, check=True).stdout
    assert set(elf.needed(dynamic)) <= set(re.findall(r"^\s+(\S+) =>", said, re.MULTILINE))
    assert "libc.so.6" in elf.needed(dynamic)


@given(some.binary(max_size=64), some.integers(0, 0x300))
def test_what_is_no_kernel(noise: bytes, place: int) -> None:
    data = bytearray(0x300)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x20F)
    data[place : place + len(noise)] = noise
    assert kernel.unpacked(bytes(data)) is None


@pytest.fixture(scope="module")
def parts(busybox_machine: MachineImage, lasting_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the busybox VM, unpacked."""
    place = tmp_path_factory.mktemp("parts")
    # The machine says itself which parts it was made of: other tests leave parts of other kernels in the same cache.
    machine = Cache(lasting_state).find(busybox_machine.key)
    assert machine is not None
    (key,) = machine.facts["parts"]
    entry = Cache(lasting_state).find(key)
    assert entry is not None
    with (entry.folder / "parts.cpio").open("rb") as archive:
        subprocess.run(("cpio", "-id", "--quiet"), cwd=place, stdin=archive, check=True)
    return place


def test_the_modules_are_complete_and_in_order(parts: Path, busybox_machine: MachineImage) -> None:
    (home,) = (parts / "lib/modules").iterdir()
    assert busybox_machine.kernel is not None
    assert home.name == kernel.release_of(busybox_machine.kernel.read_bytes())
    index = dict(line.split(":") for line in (home / "modules.dep").read_text().splitlines())
    assert index.keys() == {str(path.relative_to(home)) for path in home.rglob("*.ko")}
    direct = {path: elf.module_info((home / path).read_bytes()) for path in index}
    by_name = {Path(path).stem.replace("-", "_"): path for path in index}
    for path, needs in index.items():
        order = needs.split()
        assert len(set(order)) == len(order)
        for one in (path, *order):
            wanted = [name for key, value in direct[one] if key == "depends" for name in value.split(",") if name]
            after = order[order.index(one) + 1 :] if one in order else order
            assert {by_name[name.replace("-", "_")] for name in wanted} <= set(after)
    aliases = (home / "modules.alias").read_text()
    assert re.search(r"^alias virtio:d00000002v\* virtio_blk$", aliases, re.MULTILINE)
    assert re.search(r"^alias fs-ext4 ext4$", aliases, re.MULTILINE)


def test_the_agent_finds_its_libraries(parts: Path) -> None:
    said = subprocess.run(("chroot", parts, "/usr/sbin/qemu-ga", "--version"), capture_output=True, text=True)
    assert "QEMU Guest Agent" in said.stdout, said.stderr


def test_the_unpacked_kernel_is_the_same_kernel(busybox_machine: MachineImage) -> None:
    assert busybox_machine.kernel is not None
    assert busybox_machine.kernel_elf is not None
    release = kernel.release_of(busybox_machine.kernel.read_bytes())
    assert f"Linux version {release}".encode() in busybox_machine.kernel_elf.read_bytes()


@pytest.mark.parametrize("packer", [None, "xz", "gzip", "zstd"])
def test_named_kernel_and_modules(
    parts: Path, busybox_machine: MachineImage, state: Path, tmp_path: Path, packer: str | None
) -> None:
    """From a folder, packed as other distributions pack them: the very same modules come out."""
    (home,) = (parts / "lib/modules").iterdir()
    shutil.copytree(home / "kernel", tmp_path / home.name / "kernel")
    if packer:
        modules = [str(path) for path in (tmp_path / home.name).rglob("*.ko")]
        subprocess.run(
            (packer, "-q", "--rm", "-1", *modules) if packer == "zstd" else (packer, "-1", *modules), check=True
        )
    recipe = {"recipe": "busybox", "kernel": str(busybox_machine.kernel), "modules": str(tmp_path / home.name)}
    image = machine_image({"build": recipe}, state, quiet)
    assert busybox_machine.initrd is not None
    assert image.initrd is not None
    assert image.initrd.read_bytes() == busybox_machine.initrd.read_bytes()
    assert image.sha256 == busybox_machine.sha256


def test_named_parts_that_are_none(state: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "vmlinuz"
    wrong.write_bytes(lzma.compress(b"no kernel"))
    with pytest.raises(Refused, match="not a Linux kernel"):
        machine_image({"build": {"recipe": "busybox", "kernel": str(wrong)}}, state, quiet)
    with pytest.raises(Refused, match="No such file"):
        machine_image({"build": {"recipe": "busybox", "kernel": "/nowhere"}}, state, quiet)
    with pytest.raises(Refused, match="Is a directory"):
        machine_image({"build": {"recipe": "busybox", "kernel": str(tmp_path)}}, state, quiet)
    with pytest.raises(Refused, match="takes no kernel"):
        container_image({"build": {"recipe": "busybox", "kernel": str(wrong)}}, state, quiet)
    assert size(state) == 0


def test_modules_that_are_no_folder_of_modules(busybox_machine: MachineImage, state: Path, tmp_path: Path) -> None:
    recipe = {"recipe": "busybox", "kernel": str(busybox_machine.kernel), "modules": str(tmp_path)}
    with pytest.raises(Refused, match="expected a folder with kernel/"):
        machine_image({"build": recipe}, state, quiet)


def test_modules_without_their_kernel(state: Path, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    with pytest.raises(Refused, match="modules: needs kernel:"):
        machine_image({"build": {"recipe": "busybox", "modules": str(tmp_path)}}, state, quiet)


def test_a_file_more_costs_no_download(
    busybox_machine: MachineImage, lasting_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts are kept: neither apt nor its mirror is needed again."""
    monkeypatch.setenv("PATH", "/nowhere")
    image = machine_image(with_files({"path": "/etc/motd", "content": "x"}), lasting_state, quiet)
    assert image.key != busybox_machine.key
    assert image.sha256 != busybox_machine.sha256
    assert image.kernel is not None
    assert busybox_machine.kernel is not None
    assert image.kernel.stat().st_ino == busybox_machine.kernel.stat().st_ino


def test_without_busybox_on_the_host_it_comes_as_a_package(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = container_image(RECIPE, state / "here", quiet)
    monkeypatch.setattr(userland, "HOST_BUSYBOX", (Path("/nowhere/busybox"), Path("/bin/sh")))
    told: list[str] = []
    image = container_image(RECIPE, state / "there", told.append)
    assert "downloading package busybox-static" in told
    assert image.fingerprint == here.fingerprint


def apt_config(monkeypatch: pytest.MonkeyPatch, place: Path, **settings: str) -> None:
    """Settings for apt of this test alone."""
    path = place / "apt.conf"
    path.write_text("".join(f'{name.replace("__", "::")} "{value}";\n' for name, value in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(path))


def test_without_package_lists_they_are_fetched(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lists/partial").mkdir(parents=True)
    apt_config(monkeypatch, tmp_path, Dir__State__lists=str(tmp_path / "lists"))
    told: list[str] = []
    with workshop(state, told.append) as packages:
        assert packages.download("busybox-static").suffix == ".deb"
        assert re.match(r"linux-image-\d", packages.depends("linux-image-amd64")[0])
    assert told == ["downloading package busybox-static", "fetching package lists"]
    assert list(state.iterdir()) == []
    assert os.listdir(tmp_path / "lists") == ["partial"]


def test_a_mirror_that_does_not_answer(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apt_config(
        monkeypatch, tmp_path, Acquire__http__Proxy="http://127.0.0.1:9", Acquire__https__Proxy="http://127.0.0.1:9"
    )
    with pytest.raises(Unreachable, match="package linux-image-"):
        machine_image(RECIPE, state, quiet)
    assert size(state) == 0


def test_a_disk_that_is_full_is_not_taken_for_a_silent_mirror(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)], check=True)
    try:
        with workshop(tmp_path, quiet) as packages, pytest.raises(Refused, match="busybox-static") as caught:
            packages.download("busybox-static")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert "make room" in str(caught.value.problem.hint)


def test_a_package_that_nobody_knows(state: Path) -> None:
    with (
        workshop(state, quiet) as packages,
        pytest.raises(Refused, match="package no-such-package: cannot be downloaded"),
    ):
        packages.download("no-such-package")
    assert list(state.iterdir()) == []


def test_a_host_without_package_tools(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Refused, match="apt-cache: not installed") as caught:
        machine_image(RECIPE, state, quiet)
    assert "kernel:" in str(caught.value.problem.hint)


def test_the_wheel_has_the_scripts() -> None:
    """Everything that a guest runs is a file beside the code: a wheel without them would make guests without init."""
    place = Path(userland.__file__).parent
    for source in place.glob("*.py"):
        for name in re.findall(r'"([\w-]+\.sh)"', source.read_text()):
            assert (place / name).is_file()


@pytest.mark.parametrize("path", sorted(Path(userland.__file__).parent.glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_are_shell(path: Path) -> None:
    subprocess.run(("/bin/busybox", "sh", "-n", path), check=True)
