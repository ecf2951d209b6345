"""polling.py: what can be read is told, however many files are open besides."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from reconciler.backends.lxd.client.local import LocalTalk, UnixConnection
from reconciler.backends.qemu.agent import Agent
from reconciler.polling import readable
from reconciler.watch.inbox import Flag

MOST_OF_SELECT = 1024


@pytest.fixture
def crowded() -> Iterator[None]:
    """Whatever is opened from now on is beyond what ``select`` knows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * MOST_OF_SELECT), hard))
    with ExitStack() as open_files:
        open_files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        handle = -1
        while handle < MOST_OF_SELECT:
            handle = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            open_files.callback(os.close, handle)
        yield


def test_those_that_can_be_read_are_told_and_no_others() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert readable([one, other], 0.0) == set()
        one.send(b"x")
        assert readable([one, other.fileno()], None) == {other.fileno()}
        other.recv(1)
        one.close()
        assert readable([other], None) == {other.fileno()}, "an end can be read, too"


def test_a_flag_is_waited_for_beyond_them(crowded: None) -> None:
    flag = Flag()
    assert flag.fileno() >= MOST_OF_SELECT and not flag.wait(0.0)
    flag.set()
    assert flag.wait(30.0)
    flag.close()


def test_an_agent_rests_beyond_them(crowded: None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        agent = Agent.__new__(Agent)
        agent._socket = ours
        agent._rest(0.01)


def test_an_idle_connection_is_taken_beyond_them(crowded: None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        talk, connection = LocalTalk(None), UnixConnection(None, 1.0)  # type: ignore[arg-type]  # nobody connects
        connection.sock = ours
        talk._give_back(connection)
        assert talk._take(1.0) is connection
