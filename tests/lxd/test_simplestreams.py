"""Image servers that speak simplestreams: LXD fetches from one, over plain http on loopback, and checks it."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.images import container_image
from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Desired, ResourceId, Result
from tests.support.lxd import Lab, busybox_image

ALIAS = "busybox/1"
VERSION = "20260101_00:00"
PRODUCT = "busybox:1:amd64:default"
FILES = {"lxd.tar.xz": "lxd.tar.xz", "root.tar.xz": "root.tar.xz", "rootfs.squashfs": "squashfs"}


@dataclass(frozen=True, slots=True)
class Server:
    """A loopback image server. fingerprint: of its one image; asked: the paths that were fetched."""

    url: str
    folder: Path
    fingerprint: str
    asked: list[str] = field(default_factory=list)


def split(built: Path, folder: Path) -> None:
    """The unified image as the two files that image servers hold: what LXD is to know, and the root file system."""
    with (
        tarfile.open(built) as whole,
        tarfile.open(folder / "lxd.tar.xz", "w:xz") as about,
        tarfile.open(folder / "root.tar.xz", "w:xz") as root,
    ):
        for member in whole:
            content = whole.extractfile(member) if member.isreg() else None
            name = member.name.removeprefix("./")
            target = root if name.split("/")[0] == "rootfs" else about
            if target is root:
                member.name = name.removeprefix("rootfs").lstrip("/") or "."
                if member.islnk():
                    member.linkname = member.linkname.removeprefix("./").removeprefix("rootfs/")
            target.addfile(member, content)


def catalogue(folder: Path, rootfs: str) -> str:
    """streams/v1 for the image in ``folder``; its fingerprint: the checksum of both files together."""
    parts = [folder / "lxd.tar.xz", folder / rootfs]
    together = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    items: dict[str, dict[str, Any]] = {
        part.name: {
            "ftype": FILES[part.name],
            "path": f"images/{part.name}",
            "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
            "size": part.stat().st_size,
        }
        for part in parts
    }
    combined = {"root.tar.xz": "combined_rootxz_sha256", "rootfs.squashfs": "combined_squashfs_sha256"}[rootfs]
    items["lxd.tar.xz"] |= {"combined_sha256": together, combined: together}
    product = {
        "aliases": ALIAS,
        "arch": "amd64",
        "os": "Busybox",
        "release": "1",
        "release_title": "1",
        "variant": "default",
        "versions": {VERSION: {"items": items}},
    }
    streams = folder / "streams" / "v1"
    streams.mkdir(parents=True, exist_ok=True)
    images = {"content_id": "images", "datatype": "image-downloads", "format": "products:1.0"}
    (streams / "images.json").write_text(json.dumps({**images, "products": {PRODUCT: product}}))
    entry = {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": [PRODUCT]}
    (streams / "index.json").write_text(json.dumps({"format": "index:1.0", "index": {"images": entry}}))
    return together


@contextmanager
def serving(folder: Path, fingerprint: str) -> Iterator[Server]:
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            asked.append(self.path)

        def log_message(self, format: str, *args: Any) -> None: ...

        def translate_path(self, path: str) -> str:
            return super().translate_path(path.replace("/images/", "/", 1))

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}", folder, fingerprint, asked)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=["root.tar.xz", "rootfs.squashfs"])
def server(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Server]:
    """Once with a tarball, once with the squashfs that real image servers prefer."""
    built = container_image({"build": {"recipe": "busybox"}}, lab.lxd.state, lambda _: None)
    split(built.metadata, tmp_path)
    if request.param == "rootfs.squashfs":
        squash(tmp_path)
    with serving(tmp_path, catalogue(tmp_path, request.param)) as started:
        yield started
    lab.sweep()
    lab.client.delete(("images", started.fingerprint), Deadline.after(60))  # what LXD has, it does not fetch again


def squash(folder: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    with tarfile.open(folder / "root.tar.xz") as packed:
        packed.extractall(tree, filter="fully_trusted")
    subprocess.run(
        ["mksquashfs", tree, folder / "rootfs.squashfs", "-noappend", "-quiet", "-no-progress"],
        check=True,
        capture_output=True,
    )
    (folder / "root.tar.xz").unlink()


def image(lab: Lab, name: str, server: Server, **more: Any) -> Desired:
    source = {"server": server.url, "protocol": "simplestreams", **(more or {"alias": ALIAS})}
    return lab.desired("Image", name, {"type": "container", "source": source, "identity": "5" * 64})


def made_from(lab: Lab, name: str, image: ResourceId) -> Desired:
    return lab.container(name, needs=[image], image={"name": image.name, "identity": "5" * 64})


def test_an_image_and_a_container_come_from_it(lab: Lab, server: Server) -> None:
    wanted = image(lab, lab.lxd.name("i"), server)
    name = lab.lxd.name()
    lab.converge(wanted, made_from(lab, name, wanted.id))
    assert lab.raw("images", "aliases", wanted.id.name)["target"] == server.fingerprint
    assert lab.raw("instances", name)["config"]["volatile.base_image"] == server.fingerprint
    assert lab.inside(name, "sh", "-c", "echo alive") == "alive\n"
    assert {"/streams/v1/index.json", "/streams/v1/images.json"} <= set(server.asked)
    asked = len(server.asked)
    lab.converge(wanted, made_from(lab, name, wanted.id))
    assert len(server.asked) == asked, "in sync: nobody asks the server anything"
    lab.converge(busybox_image(lab), prune=True)
    assert lab.client.find("images", server.fingerprint) is None, "what was fetched for us goes with us"


def test_one_that_is_named_by_its_fingerprint_and_one_straight_from_the_server(lab: Lab, server: Server) -> None:
    pinned = image(lab, lab.lxd.name("i"), server, fingerprint=server.fingerprint)
    source = {"server": server.url, "protocol": "simplestreams", "alias": ALIAS}
    straight = lab.container(lab.lxd.name(), image={"remote": source, "identity": "6" * 64})
    lab.converge(pinned, straight)
    assert lab.raw("instances", straight.id.name)["config"]["volatile.base_image"] == server.fingerprint


def test_what_is_not_there_or_not_what_was_promised_fails_and_leaves_nothing(lab: Lab, server: Server) -> None:
    unknown = image(lab, lab.lxd.name("i"), server, alias="no-such/9")
    stranger = image(lab, lab.lxd.name("i"), server, fingerprint="f" * 64)
    for wanted in (unknown, stranger):
        (outcome,) = lab.apply(wanted)
        assert outcome.result is Result.FAILED and outcome.problem is not None
    before = {one["fingerprint"] for one in lab.client.get("images", recursion="1").metadata}
    rootfs = next(path.name for path in server.folder.glob("root*"))
    file = server.folder / rootfs
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1  # one bit, after the catalogue was made
    file.write_bytes(data)
    wanted = image(lab, lab.lxd.name("i"), server)
    (outcome,) = lab.apply(wanted)
    assert outcome.result is Result.FAILED and outcome.problem is not None
    assert "hash" in str(outcome.problem).lower() or "fingerprint" in str(outcome.problem).lower()
    assert {one["fingerprint"] for one in lab.client.get("images", recursion="1").metadata} == before
    assert lab.client.find("images", "aliases", wanted.id.name) is None
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    lab.converge(wanted)  # mended: the next apply has it
