"""Source ``url``: what a server may do wrong, done by a real one."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from reconciler.backends.images import container_image, machine_image, size
from reconciler.backends.images.download import Limits, check_url, download
from reconciler.problems import Refused, Unreachable
from tests.images.web import Web, body, broken, dripping, endless, redirect, silent

DISK = b"a disk".ljust(512, b".")
DIGEST = hashlib.sha256(DISK).hexdigest()


def quiet(_: str) -> None:
    """Nobody looks at the progress."""


def refused(source: dict[str, str], state: Path) -> str:
    """Why a machine image is refused; and nothing is kept."""
    with pytest.raises(Refused) as caught:
        machine_image(source, state, quiet)
    left = [path for path in state.rglob("*") if not path.is_dir()]
    assert left == []
    assert caught.value.problem.hint
    return str(caught.value)


def test_a_file_is_fetched_once(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = body(DISK)
    source = {"url": web.url("/disk.raw"), "sha256": DIGEST}
    image = machine_image(source, state, quiet)
    again = machine_image(source, state, quiet)
    assert image == again
    assert image.disk is not None
    assert image.disk.read_bytes() == DISK
    assert (image.disk_format, image.virtual_size, image.sha256) == ("raw", 512, DIGEST)
    assert web.asked == ["/disk.raw"]
    assert image.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in image.folder.iterdir()} == {0o600}


def test_another_checksum(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = body(DISK)
    said = refused({"url": web.url("/disk.raw"), "sha256": "0" * 64}, state)
    assert f"expected sha256 {'0' * 64}, got {DIGEST}" in said


def test_truncated(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = body(DISK, announced=1000)
    assert "truncated: expected 1000 bytes, got 512" in refused({"url": web.url("/disk.raw"), "sha256": DIGEST}, state)


def test_not_there(web: Web, state: Path) -> None:
    assert "expected a file, got 404" in refused({"url": web.url("/disk.raw"), "sha256": DIGEST}, state)


def test_redirects_in_a_circle(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = redirect("/other.raw")
    web.pages["/other.raw"] = redirect("/disk.raw")
    assert "circle" in refused({"url": web.url("/disk.raw"), "sha256": DIGEST}, state)
    assert len(web.asked) < 12


def test_a_redirect_on_loopback_is_followed(web: Web, state: Path) -> None:
    web.pages["/latest.raw"] = redirect("/disk.raw")
    web.pages["/disk.raw"] = body(DISK)
    image = machine_image({"url": web.url("/latest.raw"), "sha256": DIGEST}, state, quiet)
    assert image.sha256 == DIGEST


def test_a_redirect_to_plain_http_elsewhere(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = redirect("http://192.0.2.1/disk.raw")
    said = refused({"url": web.url("/disk.raw"), "sha256": DIGEST}, state)
    assert "redirects to http://192.0.2.1/disk.raw: expected https://" in said


@pytest.mark.parametrize("target", ["file:///etc/shadow", "ftp://127.0.0.1/x", "gopher://x"])
def test_a_redirect_to_another_scheme(web: Web, state: Path, target: str) -> None:
    web.pages["/disk.raw"] = redirect(target)
    assert "expected https://" in refused({"url": web.url("/disk.raw"), "sha256": DIGEST}, state)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x",
        "ftp://example.org/x",
        "file:///etc/passwd",
        "//x",
        "https://",
        "http://127.0.0.1.example.org/",
    ],
)
def test_addresses_that_are_not_fetched_from(url: str) -> None:
    with pytest.raises(Refused, match="expected https://"):
        check_url(url)


def test_a_remote_server_may_not_lead_to_this_machine() -> None:
    with pytest.raises(Refused, match=r"redirects to http://127\.0\.0\.1/"):
        check_url("http://127.0.0.1/", origin="https://example.org/")


def test_no_secrets_in_an_address() -> None:
    with pytest.raises(Refused) as caught:
        check_url("https://me:geheim@example.org/x")
    assert "geheim" not in str(caught.value)


def test_too_much(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = endless
    with pytest.raises(Refused, match="more than the 1000000 that"):
        download(web.url("/disk.raw"), DIGEST, state / "x", quiet, Limits(size=1_000_000))


def test_too_much_announced(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = body(DISK, announced=1 << 50)
    said = refused({"url": web.url("/disk.raw"), "sha256": DIGEST}, state)
    assert "more than" in said


def test_a_server_in_trouble_is_asked_again_later(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = broken
    with pytest.raises(Unreachable, match="503"):
        machine_image({"url": web.url("/disk.raw"), "sha256": DIGEST}, state, quiet)


def test_a_server_that_falls_silent(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = silent(web.released)
    with pytest.raises(Unreachable, match="no answer"):
        download(web.url("/disk.raw"), DIGEST, state / "x", quiet, Limits(silence=0.2))


def test_a_server_that_only_drips(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = dripping(web.released)
    with pytest.raises(Unreachable, match="too slow"):
        download(web.url("/disk.raw"), DIGEST, state / "x", quiet, Limits(grace=0.2, pace=1000))


def test_nobody_there(state: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/disk.raw"
        with pytest.raises(Unreachable, match="refused"):
            machine_image({"url": url, "sha256": DIGEST}, state, quiet)
    assert size(state) == 0


def test_a_url_without_checksum(web: Web, state: Path) -> None:
    web.pages["/disk.raw"] = body(DISK)
    assert "expected a sha256" in refused({"url": web.url("/disk.raw")}, state)
    assert web.asked == []


@pytest.mark.parametrize("digest", ["", "abc", "G" * 64, DIGEST.upper(), DIGEST + "0"])
def test_a_checksum_that_is_none(web: Web, state: Path, digest: str) -> None:
    said = refused({"url": web.url("/disk.raw"), "sha256": digest, "format": "raw"}, state)
    assert "expected 64 hexadecimal digits" in said


def test_a_page_instead_of_an_image(web: Web, state: Path) -> None:
    page = b"<html>please log in</html>"
    web.pages["/image.tar.xz"] = body(page)
    source = {"url": web.url("/image.tar.xz"), "sha256": hashlib.sha256(page).hexdigest()}
    with pytest.raises(Refused, match=r"image\.tar\.xz: damaged"):
        container_image(source, state, quiet)


def test_a_proxy_is_not_asked_for_our_own_machine(web: Web, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    web.pages["/disk.raw"] = body(DISK)
    assert machine_image({"url": web.url("/disk.raw"), "sha256": DIGEST}, state, quiet).sha256 == DIGEST
