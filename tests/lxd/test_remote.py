"""A Host over https: pinned certificate, client certificate, and an environment that cannot change either."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.backends.lxd.address import resolve_address
from reconciler.backends.lxd.backend import LxdBackend
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Result
from reconciler.problems import Refused, Unreachable
from tests.support.lxd import PrivateLxd, busybox_image, lab_on, private_lxd
from tests.support.unique import own_port


@dataclass(frozen=True)
class Remote:
    """A second private LXD that listens on loopback. spec: the ``lxd`` mapping of a Host for it."""

    lxd: PrivateLxd
    url: str
    spec: dict[str, str]


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1", "-nodes", "-days", "2"]
    made = ["openssl", *words, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("certificates")
    certificate, key = make_certificate(folder, "client")
    with private_lxd() as lxd:
        client = lxd.client()
        port = own_port()
        within = Deadline.after(60)
        client.patch((), {"config": {"core.https_address": f"127.0.0.1:{port}"}}, within)
        pem = certificate.read_text()
        body = "".join(line for line in pem.splitlines() if not line.startswith("-"))
        client.post(("certificates",), {"type": "client", "name": "tests", "certificate": body}, within)
        pinned = folder / "server.crt"
        pinned.write_text(client.get().metadata["environment"]["certificate"])
        client.close()
        url = f"https://127.0.0.1:{port}"
        spec = {"url": url, "serverCertificate": str(pinned), "clientCertificate": str(certificate)}
        yield Remote(lxd, url, {**spec, "clientKey": str(key)})


def test_everything_works_over_https(remote: Remote) -> None:
    with lab_on(remote.lxd, remote.spec, "lxd/far") as lab:
        image = busybox_image(lab)
        far = lab.desired("Image", "busybox@far", image.spec)
        lab.converge(far)
        name = remote.lxd.name()
        run = [{"command": ["sh", "-c", "echo hello > /said"], "when": "create", "timeout": 60}]
        want = lab.container(name, run=run, ready={"log": "ready", "command": ["true"], "timeout": 120})
        lab.converge(far, want)
        assert lab.inside(name, "cat", "/said") == "hello\n"
        assert lab.inside(name, "sh", "-c", "head -c 300000 /dev/zero | wc -c").strip() == "300000"
        lab.converge(far, lab.container(name, memory={"size": 64 << 20}))
        lab.converge(far, prune=True)


def test_devices_of_a_container_elsewhere_are_believed(remote: Remote, tmp_path: Path) -> None:
    """Its /proc is not ours to look into, so its config is all that is known: plugged in, and no drift is seen."""
    (tmp_path / "page").write_text("hello\n")
    with lab_on(remote.lxd, remote.spec, "lxd/far") as lab:
        far = lab.desired("Image", "busybox@far", busybox_image(lab).spec)
        name = remote.lxd.name()
        site = {"type": "disk", "source": str(tmp_path), "path": "/srv", "readonly": "true"}
        lab.converge(far)
        lab.converge(far, lab.container(name))
        began = lab.init_start(name)
        lab.converge(far, lab.container(name, devices={"share-site": site}))
        assert "/srv" in lab.inside(name, "cat", "/proc/mounts") and lab.init_start(name) == began
        lab.inside(name, "umount", "/srv")
        assert lab.plan(far, lab.container(name, devices={"share-site": site}))[0].in_sync
        lab.converge(far, lab.container(name))
        lab.converge(far, prune=True)


def test_images_can_come_from_another_lxd(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab_on(remote.lxd) as far:
        far.converge(busybox_image(far))
        target = far.raw("images", "aliases", "busybox")["target"]
        far.client.patch(("images", target), {"public": True}, Deadline.after(60))
    source = {"server": remote.url, "protocol": "lxd", "alias": "busybox"}
    monkeypatch.setenv("SSL_CERT_FILE", remote.spec["serverCertificate"])  # LXD trusts image servers by authority
    with private_lxd() as near, lab_on(near) as lab:
        name = near.name("i")
        image = lab.desired("Image", name, {"type": "container", "source": source, "identity": "7" * 64})
        lab.converge(image, lab.container(near.name(), needs=[image.id], image={"name": name, "identity": "7" * 64}))
        assert lab.raw("images", "aliases", name)["target"] == target
        straight = lab.container(near.name(), image={"remote": source, "identity": "8" * 64})
        lab.converge(image, straight)
        pinned = {**source, "fingerprint": "f" * 64}
        wrong = lab.desired("Image", near.name("i"), {"type": "container", "source": pinned, "identity": "9" * 64})
        assert lab.apply(wrong)[0].result is Result.FAILED
        lab.converge(lab.container(near.name("k"), power="stopped", image=straight.spec["image"]), prune=True)
        assert lab.client.find("images", "aliases", name) is None


@pytest.mark.parametrize("bundle", ["/etc/ssl/certs/ca-certificates.crt", "stranger", "own"])
def test_the_environment_cannot_unpin(
    remote: Remote, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger, _ = make_certificate(tmp_path, "stranger")
    bundles = {"stranger": str(stranger), "own": remote.spec["serverCertificate"]}
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, bundles.get(bundle, bundle))
    right = Client(resolve_address(remote.spec, tmp_path))
    assert right.get("instances").metadata == []
    right.close()
    wrong = Client(resolve_address({**remote.spec, "serverCertificate": str(stranger)}, tmp_path))
    with pytest.raises(Unreachable, match="not the pinned one"):
        wrong.get("instances")
    with pytest.raises(Unreachable, match="not the pinned one"):
        wrong.websocket(("events",), Deadline.after(60))
    wrong.close()


@contextmanager
def impostor(certificate: Path, key: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A TLS server with another certificate; what it got to read after the handshake."""
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()
        listening.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                try:
                    plain, _ = listening.accept()
                    plain.settimeout(60)
                    with context.wrap_socket(plain, server_side=True) as secure:
                        heard.append(secure.recv(4096))
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}", heard
        finally:
            stop.set()
            thread.join()


@contextmanager
def dripping(certificate: Path, key: Path, beginning: bytes) -> Iterator[str]:
    """An LXD, by its certificate, whose answer begins well and goes on a byte at a time until somebody hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            plain, _ = listening.accept()
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as secure:
                secure.recv(4096)
                secure.sendall(beginning)
                while not over.wait(0.05):
                    secure.sendall(b" ")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def test_an_answer_that_only_drips_has_no_more_time_than_any_other(remote: Remote, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "slow")
    body, headers = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nServer:"

    def ask(case: tuple[Callable[[Client, Deadline], object], bytes]) -> None:
        asked, beginning = case
        with dripping(certificate, key, beginning) as url:
            spec = {**remote.spec, "url": url, "serverCertificate": str(certificate)}
            client = Client(resolve_address(spec, tmp_path))
            with pytest.raises(Unreachable, match="it took too long"):
                asked(client, Deadline.after(1))
            client.close()

    cases: list[tuple[Callable[[Client, Deadline], object], bytes]] = [
        (lambda client, within: client.get("instances", within=within), body),
        (lambda client, within: client.get("instances", within=within), headers),
        (lambda client, within: client.stream("instances", sink=lambda _: None, within=within), body),
        (lambda client, within: client.head("instances", within=within), headers),
        (lambda client, within: client.websocket(("events",), within), headers),
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        list(pool.map(ask, cases, timeout=60))


def test_an_impostor_hears_nothing(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = make_certificate(tmp_path, "impostor")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with impostor(certificate, key) as (url, heard):
        client = Client(resolve_address({**remote.spec, "url": url}, tmp_path))
        with pytest.raises(Unreachable):
            client.get("instances")
        with pytest.raises(Unreachable):
            client.websocket(("events",), Deadline.after(5))
        client.close()
    assert not any(heard)


def test_an_untrusted_client_is_told_what_to_do(remote: Remote, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "unknown")
    spec = {**remote.spec, "clientCertificate": str(certificate), "clientKey": str(key)}
    client = Client(resolve_address(spec, tmp_path))
    with pytest.raises(Refused, match="does not trust this client certificate"):
        client.get("instances")
    client.close()


def test_a_missing_certificate_is_named(remote: Remote, tmp_path: Path) -> None:
    backend = LxdBackend("lxd/far", {**remote.spec, "clientKey": str(tmp_path / "none")}, remote.lxd.settings)
    with pytest.raises(Refused, match="clientKey: there is no file"):
        backend.observe()
    backend.close()


def test_nobody_there_is_unreachable(remote: Remote) -> None:
    backend = LxdBackend("lxd/far", {**remote.spec, "url": f"https://127.0.0.1:{own_port()}"}, remote.lxd.settings)
    with pytest.raises(Unreachable, match="connection refused"):
        backend.observe()
    backend.close()
