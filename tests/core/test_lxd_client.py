"""backends/lxd/client: what it makes of an LXD that is busy, says too much, or is none."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
import requests
import urllib3

from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.backend import LxdBackend
from reconciler.backends.lxd.client import Client, TooMuch
from reconciler.backends.lxd.client.remote import RemoteTalk, open_session
from reconciler.backends.lxd.client.websockets import WebSocket
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.files import Files
from reconciler.model import Desired, Observed, Power, ResourceId, Step, Verb
from reconciler.ports import Settings
from reconciler.problems import BackendError, Refused, Unreachable

BUSY = b'{"type": "error", "error": "Instance is busy running a \\"start\\" operation"}'
WITHIN = 60.0


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode() + body


GOOD = http(b'{"type": "sync", "metadata": {}}')


@contextmanager
def server(path: Path, *answers: bytes) -> Iterator[tuple[Client, list[bytes]]]:
    """A client of it, and the requests that came; each connection gets the next answer and is closed."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=_serve, args=(listening, answers, asked))
        thread.start()
        client = Client(Address(socket=path))
        try:
            yield client, asked
        finally:
            client.close()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listening: socket.socket, answers: tuple[bytes, ...], asked: list[bytes]) -> None:
    for answer in answers:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, suppress(ConnectionError, BrokenPipeError):
            data = connection.recv(65536)
            while not data.endswith(b"0\r\n\r\n" if data.startswith(b"POST") else b"\r\n\r\n"):
                data += connection.recv(65536)
            asked.append(data)
            connection.sendall(answer)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def test_an_upload_that_has_to_wait_is_sent_as_a_whole_again(place: Path) -> None:
    with server(place, http(BUSY, "500 no"), GOOD) as (client, asked):
        data = BytesIO(b"head and contents")
        data.seek(9)
        client.upload(("instances", "c", "files"), data, {}, Deadline.after(WITHIN))
    assert [b"contents" in one for one in asked] == [True, True] and b"head" not in asked[1]


def test_an_upload_that_cannot_be_sent_again_is_refused(place: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"contents")
    os.close(writing)
    with os.fdopen(reading, "rb") as data, server(place, http(BUSY, "500 no"), GOOD) as (client, asked):
        with pytest.raises(Refused, match="busy"):
            client.upload(("instances", "c", "files"), data, {}, Deadline.after(WITHIN))
        client.get()  # nothing was sent since
    assert asked[1].startswith(b"GET")


def test_a_file_of_a_guest_is_as_long_as_it_should_be(place: Path) -> None:
    most = 4 << 20
    with server(place, http(bytes(most)), http(bytes(most + 1)), http(b"x" * 10, length=11)) as (client, _):
        files = Files(client, "c")
        assert files.read("/etc/passwd") == bytes(most)
        with pytest.raises(TooMuch, match="longer than 4 MiB"):
            files.read("/etc/passwd")
        with pytest.raises(Unreachable):
            files.read("/etc/passwd")


def test_an_lxd_that_is_gone_is_unreachable_by_every_way(place: Path) -> None:
    client = Client(Address(socket=place))
    for ask in (client.get, client.head, client.raw):
        with pytest.raises(Unreachable, match="no such file"):
            ask("instances", within=Deadline.after(WITHIN))
    with pytest.raises(Unreachable, match="no such file"):
        client.stream("instances", sink=print, within=Deadline.after(WITHIN))


def test_what_the_receiver_of_a_stream_has_to_say_is_not_lxds(place: Path) -> None:
    def sink(_: bytes) -> None:
        raise BrokenPipeError

    with server(place, http(b"contents"), http(b"contents", length=9)) as (client, _):
        with pytest.raises(BrokenPipeError):
            client.stream("instances", sink=sink, within=Deadline.after(WITHIN))
        with pytest.raises(Unreachable, match="IncompleteRead"):
            client.stream("instances", sink=bytearray().extend, within=Deadline.after(WITHIN))


@pytest.mark.parametrize(
    "said", [b"\r\n\r\n", b"HTTP/1.1 101\r\n\r\n", b"x" * (1 << 20), b""], ids=["empty", "bare", "endless", "nothing"]
)
def test_a_handshake_that_is_none(place: Path, said: bytes) -> None:
    with server(place, said) as (client, _), pytest.raises(BackendError):
        client.websocket(("operations", "x", "websocket"), Deadline.after(WITHIN))


def test_a_message_longer_than_any_ends_the_conversation() -> None:
    ours, its = socket.socketpair()
    with its:
        one = WebSocket(ours, b"")
        its.sendall(b"\x82\x7f" + (1 << 40).to_bytes(8, "big") + b"begin")
        assert one.receive() == [] and one.closed
        one.close()


def test_what_is_no_certificate_is_said_of_the_file(tmp_path: Path) -> None:
    theirs, ours, key = (tmp_path / name for name in ("server.crt", "client.crt", "client.key"))
    for file in (theirs, ours, key):
        file.write_bytes(b"\x30\x82\xff not PEM")
    talk = RemoteTalk(Address(None, "https://127.0.0.1:1", theirs, ours, key))
    with pytest.raises(Refused, match=r"serverCertificate: .*server\.crt holds no certificate in PEM"):
        talk.send("GET", (), query={}, timeout=WITHIN)


def elsewhere(place: Path) -> LxdBackend:
    """One that is talked to over a socket, and believed as one on another machine is."""
    backend = LxdBackend("lxd/far", {"socket": str(place)}, Settings("tests", place.parent, place.parent))
    backend.client.address = Address(url="https://lxd.example:8443")
    return backend


@pytest.mark.parametrize("nonsense", [b"[7]", b'{"config": 7}', b"null", b'{"status": []}'])
@pytest.mark.parametrize("verb", [Verb.DELETE, Verb.UPDATE, Verb.CREATE])
def test_what_makes_no_sense_during_an_apply_is_no_bug_of_ours(place: Path, verb: Verb, nonsense: bytes) -> None:
    want = Desired(ResourceId("Container", "web"), "lxd/far", {"image": {"name": "x", "identity": "b" * 64}})
    with server(place, *[http(b'{"type": "sync", "metadata": ' + nonsense + b"}")] * 50):
        backend = elsewhere(place)
        with pytest.raises(BackendError):
            backend.apply(Step(want.id, want.backend, verb, ""), want, None, lambda _: None)
        backend.close()


@pytest.mark.parametrize("answers", [[http(b'{"type": "sync", "metadata": [7]}')], [http(b"not JSON")], []])
def test_what_makes_no_sense_of_a_guest_is_not_known(place: Path, answers: list[bytes]) -> None:
    seen = Observed(ResourceId("Container", "web"), "lxd/far", {"ready": {"ip": True}}, Power.RUNNING)
    with server(place, *answers):
        if not answers:
            place.unlink()  # silence
        backend = elsewhere(place)
        assert [(one.type, one.status, one.reason) for one in backend.probe(seen)] == [("Ready", None, "CannotTell")]
        backend.close()


def test_an_endless_answer_over_https_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.backends.lxd.client.remote.LARGEST", 1 << 20)
    session = open_session(Address(None, "https://127.0.0.1:1"))[1]
    [hook] = session.hooks["response"]
    for size, fits in ((1 << 20, True), ((1 << 20) + 1, False)):
        response = requests.Response()
        response.raw = urllib3.HTTPResponse(BytesIO(bytes(size)), preload_content=False)
        if fits:
            hook(response)
            assert len(response.content) == size
        else:
            with pytest.raises(TooMuch):
                hook(response)
    session.close()
