"""Container images from outside: everything that could make LXD, as root, touch what is not the container's."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from reconciler.backends.images import container_image
from reconciler.backends.images.tarscan import scan
from reconciler.problems import Refused
from tests.images.tarballs import (
    METADATA,
    PACKERS,
    device,
    folder,
    good,
    hardlink,
    member,
    plain,
    symlink,
    unended,
)

Members = Sequence[tuple[tarfile.TarInfo, bytes]]


def quiet(_: str) -> None:
    """Nobody looks at the progress."""


def verdict(data: bytes, state: Path, name: str = "image.tar") -> str:
    """``good``, or why the image was refused; a refused one leaves nothing behind."""
    path = state / name
    path.write_bytes(data)
    try:
        image = container_image({"file": str(path)}, state, quiet)
    except Refused as error:
        assert not [left for left in (state / "images").rglob("*") if not left.is_dir()]
        return str(error)
    assert image.metadata.read_bytes() == data
    assert (image.fingerprint, image.rootfs, image.size) == (hashlib.sha256(data).hexdigest(), None, len(data))
    return "good"


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_good_images(state: Path, suffix: str, format: int) -> None:
    assert verdict(PACKERS[suffix](plain(good(), format)), state, f"image{suffix}") == "good"


def test_names_with_a_dot_in_front(state: Path) -> None:
    members = [folder("."), *((_renamed(entry, f"./{entry.name}"), data) for entry, data in good())]
    assert verdict(plain(members), state) == "good"


def _renamed(entry: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    entry.name = name
    if entry.islnk():
        entry.linkname = f"./{entry.linkname}"
    return entry


EVIL: dict[str, tuple[Members, str]] = {
    "metadata is a symbolic link": ([symlink("metadata.yaml", "/etc/shadow"), folder("rootfs")], "plain file"),
    "metadata is a hard link": ([hardlink("metadata.yaml", "rootfs/x"), folder("rootfs")], "hard link"),
    "metadata is a device": ([device("metadata.yaml"), folder("rootfs")], "plain file"),
    "metadata is a fifo": ([device("metadata.yaml", tarfile.FIFOTYPE), folder("rootfs")], "plain file"),
    "metadata is a folder": ([folder("metadata.yaml"), folder("rootfs")], "plain file"),
    "metadata is huge": ([member("metadata.yaml", bytes(2 << 20)), folder("rootfs")], "bytes"),
    "metadata comes again": ([*good(), member("metadata.yaml", METADATA)], "there twice"),
    "metadata comes again as a link": ([*good(), symlink("metadata.yaml", "/etc/shadow")], "plain file"),
    "metadata comes again, spelt differently": ([*good(), symlink("./metadata.yaml", "/etc/shadow")], "plain file"),
    "rootfs is a symbolic link": ([member("metadata.yaml", METADATA), symlink("rootfs", "/")], "expected a folder"),
    "rootfs is a device": ([member("metadata.yaml", METADATA), device("rootfs")], "expected a folder"),
    "rootfs becomes a link": ([*good(), symlink("rootfs", "/")], "expected a folder"),
    "templates is a link": ([*good()[:1], symlink("templates", "/etc"), folder("rootfs")], "plain file or folder"),
    "a template is a link": ([*good(), symlink("templates/x.tpl", "/etc/shadow")], "plain file or folder"),
    "a template is a hard link": ([*good(), hardlink("templates/x.tpl", "rootfs/usr/bin/true")], "hard link"),
    "a template is a device": ([*good(), device("templates/x.tpl")], "plain file or folder"),
    "backup.yaml": ([*good(), member("backup.yaml", b"x")], "at the top"),
    "backup.yaml is a link": ([*good(), symlink("backup.yaml", "/etc/cron.d/x")], "at the top"),
    "something else at the top": ([*good(), member("rootfs.img", b"x")], "at the top"),
    "absolute": ([*good(), member("/etc/cron.d/x", b"x")], "absolute"),
    "absolute behind a dot": ([*good(), member(".//etc/cron.d/x", b"x")], "at the top"),
    "upwards": ([*good(), member("rootfs/../../etc/cron.d/x", b"x")], "leads outside"),
    "upwards at once": ([*good(), member("../x", b"x")], "leads outside"),
    "a folder upwards": ([*good(), folder("rootfs/..")], "leads outside"),
    "hard link upwards": ([*good(), hardlink("rootfs/x", "rootfs/../../x")], "leads outside"),
    "hard link absolute": ([*good(), hardlink("rootfs/x", "/etc/shadow")], "absolute"),
    "hard link to metadata": ([*good(), hardlink("rootfs/x", "metadata.yaml")], "hard link"),
    "through a link": ([*good(), symlink("rootfs/a", "/etc"), member("rootfs/a/x", b"x")], "symbolic link"),
    "through a deep link": ([*good(), symlink("rootfs/a/b", ".."), member("rootfs/a/b/c/x", b"x")], "symbolic link"),
    "through a link, spelt differently": (
        [*good(), symlink("rootfs/a", "/etc"), member("rootfs/./a//x", b"x")],
        "symbolic link",
    ),
    "in the place of a link": ([*good(), symlink("rootfs/a", "/etc/x"), member("rootfs/a", b"x")], "symbolic link"),
    "hard link through a link": (
        [*good(), symlink("rootfs/a", "/etc"), hardlink("rootfs/b", "rootfs/a/shadow")],
        "symbolic link",
    ),
    "a device outside of dev": ([*good(), device("rootfs/sda", tarfile.BLKTYPE)], "device outside"),
    "an unknown kind": ([*good(), member("rootfs/x", kind=b"Z")], "not known"),
    "no metadata": ([folder("rootfs")], "no metadata.yaml"),
    "no rootfs": ([member("metadata.yaml", METADATA)], "no rootfs/"),
    "nothing": ([], "not a tarball"),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_images(state: Path, name: str) -> None:
    members, said = EVIL[name]
    assert said in verdict(gzip.compress(plain(members)), state, "image.tar.gz")


EVIL_HALVES: dict[str, tuple[Members, str]] = {
    "upwards": ([folder("."), member("../x", b"x")], "leads outside"),
    "absolute": ([member("/etc/cron.d/x", b"x")], "absolute"),
    "through a link": ([symlink("a", "/etc"), member("a/x", b"x")], "symbolic link"),
    "hard link upwards": ([hardlink("x", "../x")], "leads outside"),
    "hard link through a link": ([symlink("a", "/etc"), hardlink("b", "a/shadow")], "symbolic link"),
    "a device outside of dev": ([device("sda", tarfile.BLKTYPE)], "device outside"),
    "nothing": ([], "not a tarball"),
}


@pytest.mark.parametrize("name", EVIL_HALVES)
def test_evil_root_file_systems_of_split_images(state: Path, name: str) -> None:
    members, said = EVIL_HALVES[name]
    about, root = state / "meta.tar.gz", state / "root.tar.gz"
    about.write_bytes(gzip.compress(plain([member("metadata.yaml", METADATA)])))
    root.write_bytes(gzip.compress(plain(members)))
    with pytest.raises(Refused, match=said):
        container_image({"file": str(about), "rootfs": str(root)}, state, quiet)
    assert not [left for left in (state / "images").rglob("*") if not left.is_dir()]


def test_metadata_with_more_than_metadata(state: Path) -> None:
    """The first half holds what LXD is to know, and nothing that would be unpacked over the second."""
    about, root = state / "meta.tar", state / "root.tar"
    root.write_bytes(plain([folder("etc")]))
    for extra, said in ((member("rootfs/etc/shadow", b"x"), "at the top"), (symlink("templates", "/"), "plain file")):
        about.write_bytes(plain([member("metadata.yaml", METADATA), extra]))
        with pytest.raises(Refused, match=said):
            container_image({"file": str(about), "rootfs": str(root)}, state, quiet)


def test_another_archive_behind_the_end(state: Path) -> None:
    """One tar stops at the zeros, another may read on."""
    data = plain(good()) + plain([symlink("metadata.yaml", "/etc/shadow")])
    assert "follows behind its end" in verdict(data, state)
    assert "follows behind its end" in verdict(gzip.compress(plain(good())) + gzip.compress(b"x"), state)


def test_a_broken_header_in_the_middle(state: Path) -> None:
    """Python's tarfile takes it for the end; GNU tar skips it and reads on."""
    whole = plain(good())
    data = whole[: whole.rindex(b"rootfs/dev/null")] + b"\xff" * 512 + plain([symlink("metadata.yaml", "/etc/shadow")])
    assert "damaged" in verdict(data, state)


def test_a_header_that_only_another_tar_understands(state: Path) -> None:
    """Python's tarfile gives up on a mode that is no number and takes it for the end, without a word."""
    header = bytearray(symlink("rootfs/x", "/etc/shadow")[0].tobuf(tarfile.GNU_FORMAT))
    header[100:108] = b"no mode\0"
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    assert "a broken header in the middle" in verdict(unended(good()) + header + bytes(1024), state)


def test_a_name_in_an_extended_header(state: Path) -> None:
    """The name that counts is the one of the extended header."""
    entry, _ = member("rootfs/harmless")
    entry.pax_headers = {"path": "../../etc/cron.d/x"}
    assert "leads outside" in verdict(plain([*good(), (entry, b"")], tarfile.PAX_FORMAT), state)


def test_an_extended_header_of_any_size_is_not_read(state: Path) -> None:
    entry, _ = member("x", kind=tarfile.XHDTYPE)
    entry.size = 1 << 40
    data = entry.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    assert "an extended header of" in verdict(data, state)


def in_little_memory(path: Path) -> str:
    """What is said of the image by a process of its own that may take 200 MiB."""
    words = (
        "import sys; from pathlib import Path; from reconciler.problems import Refused;"
        "from reconciler.backends.images.tarscan import scan\n"
        "try: print(scan(Path(sys.argv[1]), 'bomb', 'unified'))\n"
        "except Refused as error: print(error)"
    )

    answer = subprocess.run(
        ("prlimit", f"--as={200 << 20}", sys.executable, "-c", words, path), capture_output=True, text=True, timeout=200
    )
    return answer.stdout + answer.stderr


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"])
def test_bombs(state: Path, suffix: str) -> None:
    """Half a GiB of zeros in less than half a MiB."""
    path, head, length = state / f"bomb{suffix}", unended(good()), 400 << 20
    entry, _ = member("rootfs/zeros")
    entry.size = length
    packer = {".tar.gz": "gzip -1", ".tar.xz": "xz -0", ".tar.zst": "zstd -q", ".tar.bz2": "bzip2 -1"}[suffix]
    with path.open("wb") as target:
        process = subprocess.Popen(packer.split(), stdin=subprocess.PIPE, stdout=target)
        assert process.stdin is not None
        process.stdin.write(head + entry.tobuf(tarfile.GNU_FORMAT))
        for _ in range(length >> 20):
            process.stdin.write(bytes(1 << 20))
        process.stdin.close()
        assert process.wait() == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert "unpacks to more than" in in_little_memory(path)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 20


def test_an_xz_bomb_in_an_extended_header(state: Path) -> None:
    entry, _ = member("x", kind=tarfile.XHDTYPE)
    entry.size = 900 << 20
    path = state / "bomb.tar.xz"
    path.write_bytes(lzma.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(50 << 20), preset=0))
    assert "an extended header of" in in_little_memory(path)


def test_every_truncation_is_damaged(state: Path) -> None:
    """At any place: never good, never another error."""
    data = gzip.compress(plain(good()))
    path = state / "cut.tar.gz"
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises(Refused):
            scan(path, "cut", "unified")


def test_split_images(state: Path) -> None:
    """metadata and rootfs apart: the fingerprint is that of both."""
    metadata, rootfs = state / "meta.tar.xz", state / "rootfs.tar.xz"
    metadata.write_bytes(lzma.compress(plain([member("metadata.yaml", METADATA)])))
    rootfs.write_bytes(lzma.compress(plain([folder("bin"), member("bin/sh", b"x"), device("dev/null")])))
    image = container_image({"file": str(metadata), "rootfs": str(rootfs), "stamp": "1"}, state, quiet)
    assert image.rootfs is not None
    assert image.rootfs.read_bytes() == rootfs.read_bytes()
    both = metadata.read_bytes() + rootfs.read_bytes()
    assert (image.fingerprint, image.size) == (hashlib.sha256(both).hexdigest(), len(both))


@pytest.mark.parametrize(
    ("halves", "said"),
    [
        (([folder("x")], [folder("bin")]), "at the top"),
        (([folder("templates")], [folder("bin")]), "no metadata.yaml"),
        (([member("metadata.yaml", METADATA), folder("rootfs")], [folder("bin")]), "at the top"),
        (([member("metadata.yaml", METADATA)], [symlink("etc", "/etc"), member("etc/x")]), "symbolic link"),
        (([member("metadata.yaml", METADATA)], [member("../x")]), "leads outside"),
        (([member("metadata.yaml", METADATA)], [symlink(".", "/")]), "not a folder"),
        (([member("metadata.yaml", METADATA)], [device("sda", tarfile.BLKTYPE)]), "device outside"),
    ],
)
def test_evil_halves(state: Path, halves: tuple[Members, Members], said: str) -> None:
    metadata, rootfs = state / "meta.tar", state / "rootfs.tar"
    metadata.write_bytes(plain(halves[0]))
    rootfs.write_bytes(plain(halves[1]))
    with pytest.raises(Refused, match=said):
        container_image({"file": str(metadata), "rootfs": str(rootfs)}, state, quiet)


def test_a_squashfs_beside_is_taken_as_it_is(state: Path) -> None:
    metadata, rootfs = state / "meta.tar", state / "rootfs.squashfs"
    metadata.write_bytes(plain([member("metadata.yaml", METADATA)]))
    rootfs.write_bytes(b"hsqs" + bytes(100))
    assert container_image({"file": str(metadata), "rootfs": str(rootfs)}, state, quiet).rootfs is not None


NAMES = some.lists(some.sampled_from(["a", "b", "..", ".", "", "etc"]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=200, deadline=None)
@given(some.lists(some.tuples(some.sampled_from("fdsh"), NAMES, NAMES), max_size=6))
def test_what_is_good_unpacks_inside(made: list[tuple[str, str, str]]) -> None:
    """Whatever we let through, GNU tar as root unpacks without touching anything outside of its folder."""
    makers = {"f": lambda name, _: member(name, b"x"), "d": lambda name, _: folder(name), "s": symlink, "h": hardlink}
    members = [
        makers[kind](f"rootfs/{name}", f"rootfs/{target}" if kind == "h" else target) for kind, name, target in made
    ]
    data = plain([member("metadata.yaml", METADATA), folder("rootfs"), *members])
    with tempfile.TemporaryDirectory(prefix="images-") as name:
        place = Path(name)
        path = place / "image.tar"
        path.write_bytes(data)
        try:
            scan(path, "image", "unified")
        except Refused:
            return
        (place / "etc").mkdir()
        (place / "inside").mkdir()
        subprocess.run(("tar", "-C", place / "inside", "-xf", path), stderr=subprocess.DEVNULL)
        assert sorted(os.listdir(place)) == ["etc", "image.tar", "inside"]
        assert os.listdir(place / "etc") == []
        assert set(os.listdir(place / "inside")) <= {"metadata.yaml", "rootfs"}


def test_a_stream_is_read_forward_only() -> None:
    from reconciler.backends.images.unpacking import Damaged, Unpacking

    stream = Unpacking(io.BytesIO(b"abcdef"), 6)
    assert stream.read(2) == b"ab"
    assert stream.seek(4) == 4
    with pytest.raises(Damaged, match="backwards"):
        stream.seek(1)
