"""Disk images: the format that was said against the header, and whatever points out of the file."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from reconciler.backends.images import machine_image
from reconciler.problems import Refused


def quiet(_: str) -> None:
    """Nobody looks at the progress."""


def image_of(path: Path, state: Path, **more: str) -> str:
    """The format of a good image, or why it was refused."""
    try:
        image = machine_image({"file": str(path), **more}, state, quiet)
    except Refused as error:
        return str(error)
    assert image.disk is not None
    assert image.disk.read_bytes() == path.read_bytes()
    return f"{image.disk_format} {image.virtual_size}"


def qemu_img(*words: str | Path) -> None:
    """Make a real image."""
    subprocess.run(("qemu-img", *words), check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def qcow2(state: Path) -> Path:
    """A small image with something in it."""
    raw, path = state / "content.raw", state / "disk.qcow2"
    raw.write_bytes(os.urandom(1 << 16) + bytes(1 << 20))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


def test_qcow2(qcow2: Path, state: Path) -> None:
    assert image_of(qcow2, state) == f"qcow2 {(1 << 16) + (1 << 20)}"


def test_raw_keeps_its_holes(state: Path) -> None:
    path = state / "disk.raw"
    with path.open("wb") as file:
        file.write(b"begin")
        file.truncate(50 << 20)
    assert image_of(path, state) == f"raw {50 << 20}"
    kept = machine_image({"file": str(path)}, state, quiet).disk
    assert kept is not None
    assert kept.stat().st_blocks * 512 < 5 << 20


def test_the_sha256_is_checked(qcow2: Path, state: Path) -> None:
    digest = hashlib.sha256(qcow2.read_bytes()).hexdigest()
    assert image_of(qcow2, state, sha256=digest).startswith("qcow2")
    assert f"expected sha256 {'1' * 64}, got {digest}" in image_of(qcow2, state, sha256="1" * 64)


@pytest.mark.parametrize("format", ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"])
def test_a_raw_disk_whose_header_says_otherwise(state: Path, format: str) -> None:
    path = state / "disk.raw"
    qemu_img("create", "-f", format, path, "1M")
    if path.stat().st_size % 512:
        path.write_bytes(path.read_bytes().ljust(1 << 20, b"\0"))
    assert "expected a raw disk, but its header says" in image_of(path, state)


@pytest.mark.parametrize("format", ["vmdk", "vdi", "qed", "QCOW2", "host_device"])
def test_formats_that_are_not_taken(qcow2: Path, state: Path, format: str) -> None:
    assert "expected raw or qcow2" in image_of(qcow2, state, format=format)


def test_without_a_format_the_ending_decides(qcow2: Path, state: Path) -> None:
    for name, said in {"DISK.QCOW2": "qcow2 ", "disk": "header says qcow2", "disk.img": "set format: qcow2"}.items():
        shutil.copy(qcow2, state / name)
        assert said in image_of(state / name, state)
    (state / "plain").write_bytes(bytes(512))
    assert image_of(state / "plain", state) == "raw 512"


def test_a_backing_file(qcow2: Path, state: Path) -> None:
    path = state / "overlay.qcow2"
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", qcow2, path)
    assert "backing file" in image_of(path, state)


def test_an_external_data_file(state: Path) -> None:
    path = state / "outside.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={state / 'data'},data_file_raw=on", path, "1M")
    assert "external data file" in image_of(path, state)


def test_a_data_file_that_is_only_named(qcow2: Path, state: Path) -> None:
    """The name alone, far behind an extension that nobody knows."""
    data = bytearray(qcow2.read_bytes())
    (start,) = struct.unpack_from(">I", data, 100)
    padding = 8000
    struct.pack_into(">II", data, start, 0x12345678, padding)
    struct.pack_into(">II", data, start + 8 + padding, 0x44415441, 8)
    qcow2.write_bytes(data)
    assert "external data file" in image_of(qcow2, state)


def test_a_raw_disk_that_is_encrypted(state: Path) -> None:
    path = state / "disk.raw"
    path.write_bytes(b"LUKS\xba\xbe".ljust(512, b"\0"))
    assert "header says luks" in image_of(path, state)


@pytest.mark.parametrize("method", [1, 2])
def test_encrypted(qcow2: Path, state: Path, method: int) -> None:
    data = bytearray(qcow2.read_bytes())
    struct.pack_into(">I", data, 32, method)
    qcow2.write_bytes(data)
    assert "encrypted" in image_of(qcow2, state)


@pytest.mark.parametrize(("bit", "said"), [(1, "corrupt"), (7, "not known here"), (63, "not known here")])
def test_feature_bits(qcow2: Path, state: Path, bit: int, said: str) -> None:
    data = bytearray(qcow2.read_bytes())
    struct.pack_into(">Q", data, 72, 1 << bit)
    qcow2.write_bytes(data)
    assert said in image_of(qcow2, state)


def test_old_versions(state: Path) -> None:
    old, older = state / "two.qcow2", state / "nine.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", old, "1M")
    assert image_of(old, state) == f"qcow2 {1 << 20}"
    data = bytearray(old.read_bytes())
    struct.pack_into(">I", data, 4, 9)
    older.write_bytes(data)
    assert "version 9" in image_of(older, state)


@pytest.mark.parametrize("length", [0, 3, 50, 104, 70_000, 200_000])
def test_truncated_qcow2(qcow2: Path, state: Path, length: int) -> None:
    qcow2.write_bytes(qcow2.read_bytes()[:length])
    assert "truncated" in image_of(qcow2, state) or "expected a qcow2 header" in image_of(qcow2, state)


@pytest.mark.parametrize("length", [0, 511, 513])
def test_truncated_raw(state: Path, length: int) -> None:
    path = state / "disk.img"
    path.write_bytes(bytes(length))
    assert "truncated" in image_of(path, state)


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh", b"PK\x03\x04"])
def test_packed(state: Path, magic: bytes) -> None:
    path = state / "disk.img"
    path.write_bytes(magic.ljust(512, b"\0"))
    assert "unpack it first" in image_of(path, state)


def test_what_is_no_file(state: Path) -> None:
    fifo = state / "fifo.raw"
    os.mkfifo(fifo)
    (state / "folder.raw").mkdir()
    assert "expected a regular file" in image_of(fifo, state)
    assert "expected a regular file" in image_of(state / "folder.raw", state)
    assert "expected a regular file" in image_of(Path("/dev/zero"), state, format="raw")
    assert "No such file" in image_of(state / "gone.raw", state)
    assert "No such file" in image_of(state / "gone.raw", state, stamp="resolved earlier")
    assert "expected an absolute path" in image_of(Path("disk.raw"), state, stamp="x")


def test_another_file_is_another_image(state: Path) -> None:
    path = state / "disk.raw"
    path.write_bytes(b"a" * 512)
    first = machine_image({"file": str(path)}, state, quiet)
    path.write_bytes(b"b" * 512)
    second = machine_image({"file": str(path)}, state, quiet)
    assert first.key != second.key
    assert first.disk is not None
    assert first.disk.read_bytes() == b"a" * 512


@given(some.binary(max_size=300), some.integers(0, 200))
def test_a_garbled_header_is_refused_or_harmless(noise: bytes, place: int) -> None:
    """No header makes us fail in another way than by refusing, and none brings in another file."""
    from reconciler.backends.images.diskfile import inspect

    path = Path("/proc/self/fd") / str(os.memfd_create("disk"))
    try:
        data = bytearray(SAMPLE)
        data[place : place + len(noise)] = noise
        path.write_bytes(data)
        found = inspect(path, "disk.qcow2", None)
    except Refused:
        return
    finally:
        os.close(int(path.name))
    assert found.format == "qcow2"
    assert struct.unpack_from(">Q", data, 8) == (0,)


# version 3, no backing file, 64 KiB clusters, 1 MiB, first-level table in the fourth cluster
SAMPLE = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, 1 << 20, 0, 1, 3 << 16, 1 << 16, 1, 0, 0)
SAMPLE = (SAMPLE + struct.pack(">QQQII", 0, 0, 0, 4, 104)).ljust(4 << 16, b"\0")
