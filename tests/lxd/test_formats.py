"""Container images from files and urls, in every form that LXD takes: however packed, in one file or in two."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Desired, Result
from tests.images.tarballs import PACKERS
from tests.images.web import Web, body
from tests.support.lxd import Lab
from tests.support.pairs import SQUASHFS, parts_in


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The busybox image, whole and in two."""
    return parts_in(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def web() -> Iterator[Web]:
    """A server on loopback."""
    with Web() as server:
        yield server


def packed(parts: dict[str, bytes], part: str, suffix: str) -> bytes:
    return parts[SQUASHFS] if suffix == SQUASHFS else PACKERS[suffix](parts[part])


def image(lab: Lab, source: dict[str, Any]) -> Desired:
    identity = hashlib.sha256(repr(source).encode()).hexdigest()
    spec = {"type": "container", "source": source, "identity": identity}
    return lab.desired("Image", lab.lxd.name("i"), spec)


def runs(lab: Lab, source: dict[str, Any]) -> str:
    """A container made from it comes up; the fingerprint that LXD gave to the image."""
    want = image(lab, source)
    name = lab.lxd.name()
    given = {"name": want.id.name, "identity": want.spec["identity"]}
    lab.converge(want, lab.container(name, image=given, needs=[want.id]))
    assert lab.inside(name, "cat", "/etc/os-release").startswith('NAME="Busybox"')
    return str(lab.raw("images", "aliases", want.id.name)["target"])


@pytest.mark.parametrize("suffix", PACKERS)
def test_in_one_file(lab: Lab, parts: dict[str, bytes], tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"image{suffix}"
    file.write_bytes(packed(parts, "whole", suffix))
    assert runs(lab, {"file": str(file)}) == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("about", "root"), [(".tar.xz", SQUASHFS), (".tar.xz", ".tar.xz"), (".tar.gz", ".tar.zst"), (".tar.zst", ".tar.gz")]
)
def test_in_two_files(lab: Lab, parts: dict[str, bytes], tmp_path: Path, about: str, root: str) -> None:
    first, second = tmp_path / f"meta{about}", tmp_path / f"rootfs{root}"
    first.write_bytes(packed(parts, "metadata", about))
    second.write_bytes(packed(parts, "rootfs", root))
    digest = hashlib.sha256(second.read_bytes()).hexdigest()
    found = runs(lab, {"file": str(first), "rootfs": str(second), "rootfsSha256": digest})
    assert found == hashlib.sha256(first.read_bytes() + second.read_bytes()).hexdigest()


def test_in_two_files_from_a_server(lab: Lab, parts: dict[str, bytes], web: Web) -> None:
    source: dict[str, str] = {}
    for page, data, (url, digest) in (
        ("/meta.tar.xz", packed(parts, "metadata", ".tar.xz"), ("url", "sha256")),
        ("/rootfs.squashfs", parts[SQUASHFS], ("rootfsUrl", "rootfsSha256")),
    ):
        web.pages[page] = body(data)
        source |= {url: web.url(page), digest: hashlib.sha256(data).hexdigest()}
    runs(lab, source)
    assert web.asked == ["/meta.tar.xz", "/rootfs.squashfs"]
    other = {**source, "rootfsSha256": "0" * 64}
    [outcome] = lab.apply(image(lab, other))
    assert outcome.result is Result.FAILED
    assert f"{source['rootfsUrl']}: expected sha256 {'0' * 64}" in str(outcome.problem)
