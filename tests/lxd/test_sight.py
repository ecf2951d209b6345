"""backends/lxd/inside: which processes of this host are an LXD's own, and which are only called so."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.inside import look_around

LISTEN = "tcp:127.0.0.1:80"
FORWARD = f"forkproxy -- 7 3 {LISTEN} 8 3 {LISTEN}"


@contextmanager
def shell(words: Sequence[str | bytes], **options: Any) -> Iterator[int]:
    """A shell that is called so and has a child; its pid."""
    program = "/bin/sh" if len(words) == 1 else None
    with subprocess.Popen(
        words, executable=program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    ) as running:  # fmt: skip
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write(b"sleep 600 >/dev/null &\necho up\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"up\n"
        try:
            yield running.pid
        finally:
            running.stdin.write(b"kill $!\n")
            running.stdin.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    with shell(["lxd"], env={"LXD_DIR": str(tmp_path)}) as pid:
        yield pid


def test_a_monitor_is_one_of_the_same_user(server: int, tmp_path: Path) -> None:
    title = f"[lxc monitor] {tmp_path}/containers"
    with shell([f"{title} c1"]), shell([f"{title} c2"], user=65534), shell(["[lxc monitor] /elsewhere c3"]):
        assert look_around(server, None).inits.keys() == {"c1"}


def test_a_title_that_is_no_text_is_passed_over(server: int, tmp_path: Path) -> None:
    with shell([f"[lxc monitor] {tmp_path}/containers".encode() + b"\xff c1"]):
        assert look_around(server, None).inits == {}


def test_what_is_in_a_container_forwards_nothing(server: int) -> None:
    call = ["sh", "-c", f"exec sh -s {FORWARD}"]
    with shell(["unshare", "--pid", "--fork", "--kill-child", *call]):
        assert look_around(server, None).listening == frozenset()
    with shell(call):
        assert look_around(server, None).listening == {(7, LISTEN), (8, LISTEN)}
