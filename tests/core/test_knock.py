"""cli/knock.py: a push hook is answered by whoever watches; whatever is unusual is left to the long way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler import bases
from reconciler.cli import _HURRIED
from reconciler.cli.knock import SAID, knock
from reconciler.paths import runtime_dir

GOOD = b'HTTP/1.0 200 OK\r\nContent-Length: 19\r\n\r\n{"accepted": true}\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rk") as name:
        folder = Path(name) / "run" / "watch"
        folder.mkdir(parents=True)
        yield folder


@contextmanager
def answering(path: Path, *answer: bytes) -> Iterator[list[bytes]]:
    """Somebody who answers one question so, in pieces; what was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(str(path))
        here.listen()

        def answer_one() -> None:
            try:
                there, _ = here.accept()
            except OSError:
                return  # nobody came
            with there:
                asked.append(there.recv(4096))
                for piece in answer:
                    there.sendall(piece)

        thread = threading.Thread(target=answer_one, daemon=True)
        thread.start()
        yield asked
        here.shutdown(socket.SHUT_RDWR)  # who still waits for somebody is let go
        thread.join()


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        ((GOOD,), True),
        ((GOOD[:10], GOOD[10:]), True),
        ((b"HTTP/1.0 503 Service Unavailable\r\n\r\n200",), False),
        ((b"200",), False),
        ((), False),
    ],
)
def test_only_a_yes_is_one(folder: Path, answer: tuple[bytes, ...], taken: bool) -> None:
    with answering(folder / "1.sock", *answer) as asked:
        assert knock(str(folder)) is taken
    assert asked[0].startswith(b"POST /v1/reconcile HTTP/1.0\r\n")


def test_with_none_or_several_or_a_dead_one_nobody_is_asked(folder: Path) -> None:
    assert not knock(str(folder / "none")) and not knock(str(folder))
    (folder / "1.sock").touch()
    assert not knock(str(folder)), "nobody listens"
    (folder / "1.sock").unlink()
    with answering(folder / "1.sock", GOOD) as asked, answering(folder / "2.sock", GOOD) as other:
        assert not knock(str(folder)) and not asked and not other


def test_the_command_loads_next_to_nothing_for_it(folder: Path) -> None:
    words = f"import sys; from reconciler.cli import main; main({_HURRIED}); print(*sys.modules)"
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(folder.parents[1])}
    with answering(folder / "1.sock", GOOD):
        done = subprocess.run([sys.executable, "-c", words], env=environment, capture_output=True, text=True)
    assert done.stderr == f"{SAID}\n"
    assert not {"argparse", "dataclasses", "json", "reconciler.problems"} & {*done.stdout.split()}


def test_it_is_said_where_others_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("/a", "b/c"):
        monkeypatch.setenv("RECONCILER_STATE_DIR", given)
        assert Path(bases.watches()) == runtime_dir() / "watch" == tmp_path / given / "run" / "watch"
