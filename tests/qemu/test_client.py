"""QMP itself, on QEMUs without a machine (up in 20 ms): every way in which an answer may not come."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.backends.qemu.client import Command, Monitor, ask_many
from reconciler.problems import Interrupted, Refused, Unreachable
from tests.support.qemu import bare_qemu

COMMANDS = (
    "query-status",
    "query-uuid",
    "query-kvm",
    "query-cpus-fast",
    "query-named-block-nodes",
    "query-memory-size-summary",
    "cont",
    "stop",
    "system_powerdown",
    "system_reset",
    "quit",
)


def test_an_answer_and_a_no(tmp_path: Path) -> None:
    with bare_qemu(tmp_path) as (_, path), Monitor(path, "vm") as monitor:
        assert monitor.execute("query-status")["status"] == "prelaunch"
        with pytest.raises(Refused, match="vm: QEMU refused no-such: The command no-such has not been found"):
            monitor.execute("no-such")
        assert len(str(monitor.execute("query-qmp-schema"))) > 100_000


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="nobody listens there"), Monitor(tmp_path / "none", "vm"):
        pass


def test_a_stale_socket(tmp_path: Path) -> None:
    with bare_qemu(tmp_path) as (child, path):
        child.kill()
        child.wait()
        assert path.exists()
        with pytest.raises(Unreachable, match="nobody listens there"), Monitor(path, "vm"):
            pass


def test_no_greeting(tmp_path: Path) -> None:
    with bare_qemu(tmp_path) as (child, path):
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(Unreachable, match="no greeting"), Monitor(path, "vm", greeting=0.3):
            pass


def test_no_answer_and_then_one(tmp_path: Path) -> None:
    with bare_qemu(tmp_path) as (child, path), Monitor(path, "vm") as monitor:
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(Interrupted, match="did not answer query-status within"):
            monitor.execute("query-status", timeout=0.2)
        child.send_signal(signal.SIGCONT)
        assert monitor.execute("query-uuid")["UUID"]


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_in_the_middle_of_a_command(tmp_path: Path, command: str) -> None:
    with bare_qemu(tmp_path) as (child, path), Monitor(path, "vm") as monitor:
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        killer = threading.Timer(0.1, child.kill)
        killer.start()
        with pytest.raises(Interrupted, match="connection to QEMU was lost"):
            monitor.execute(command)
        killer.join()


def test_a_descriptor_is_handed_over(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 4096)
    with bare_qemu(tmp_path) as (child, path), Monitor(path, "vm") as monitor:
        handle = os.open(file, os.O_RDONLY)
        before = os.fstat(handle)
        given = monitor.execute_with(handle, "add-fd", {})
        os.close(handle)
        theirs = Path(f"/proc/{child.pid}/fd/{given['fd']}").stat()
        assert (theirs.st_dev, theirs.st_ino) == (before.st_dev, before.st_ino)


def test_an_event_is_waited_for(tmp_path: Path) -> None:
    with bare_qemu(tmp_path) as (_, path), Monitor(path, "vm") as monitor:
        assert monitor.execute_and_wait("cont", ["RESUME"], 3600.0)  # it has come: nobody waits for the hour to end
        assert not monitor.execute_and_wait("query-status", ["RESUME"], 0.1)
        assert monitor.execute_and_wait("quit", ["NEVER"], 3600.0)  # it ended: there is nothing to wait for


@contextmanager
def impostor(folder: Path, behave: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Something at the other end of the socket that is no QEMU."""
    path = folder / "impostor"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                behave(peer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}, "package": ""}, "capabilities": []}}\r\n'
)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"hello\r\n",
        b'{"QMP": 7}\r\n',
        GREETING,
        GREETING + b'{"error": {}}\r\n',
        b"\xff\xfe\r\n",
        b"[" * 4096 + b"\r\n",
    ],
)
def test_gibberish_is_silence(tmp_path: Path, said: bytes) -> None:
    with (
        impostor(tmp_path, lambda peer: peer.sendall(said)) as path,
        pytest.raises(Unreachable),
        Monitor(path, "vm", greeting=1.0),
    ):
        pass


def test_gibberish_instead_of_an_answer(tmp_path: Path) -> None:
    def behave(peer: socket.socket) -> None:
        peer.sendall(GREETING)
        peer.recv(4096)
        peer.sendall(b'{"return": {}, "id": "x"}\r\n')
        peer.recv(4096)
        peer.sendall(b"not json\r\n")

    with impostor(tmp_path, behave) as path, Monitor(path, "vm") as monitor, pytest.raises(Interrupted):
        monitor.execute("query-status", timeout=60.0)


def test_what_comes_in_pieces_late_or_unasked_is_no_answer(tmp_path: Path) -> None:
    def behave(peer: socket.socket) -> None:
        peer.sendall(GREETING[:40])
        peer.sendall(GREETING[40:])
        peer.recv(4096)
        peer.sendall(b'{"event": "STOP", "data": {}}\r\n{"return": {}}\r\n')
        peer.recv(4096)
        peer.sendall(b'{"return": "of another", "id": 7}\r\n{"event": "RESUME", "data": {}}\r\n{"return": "the')
        peer.sendall(b' one", "id": 1}\r\n')

    with impostor(tmp_path, behave) as path, Monitor(path, "vm") as monitor:
        assert monitor.execute("query-status", timeout=60.0) == "the one"
        with pytest.raises(Interrupted, match="lost during query-kvm"):
            monitor.execute("query-kvm", timeout=60.0)


def test_who_talks_without_end_is_cut_off(tmp_path: Path) -> None:
    def behave(peer: socket.socket) -> None:
        peer.sendall(GREETING)
        peer.recv(4096)
        peer.sendall(b'{"return": {}}\r\n')
        with suppress(OSError):
            while True:
                peer.sendall(b'{"event": "RTC_CHANGE", "data": {}}\r\n' * 64)

    late = pytest.raises(Interrupted, match="did not answer query-status within")
    with impostor(tmp_path, behave) as path, Monitor(path, "vm") as monitor, late:
        monitor.execute("query-status", timeout=0.5)


def test_who_does_not_read_is_not_waited_for_beyond_the_deadline(tmp_path: Path) -> None:
    done = threading.Event()

    def behave(peer: socket.socket) -> None:
        peer.sendall(GREETING)
        peer.recv(4096)
        peer.sendall(b'{"return": {}}\r\n')
        done.wait(60)

    with impostor(tmp_path, behave) as path, Monitor(path, "vm") as monitor:
        with pytest.raises(Interrupted, match="did not answer ringbuf-write within"):
            monitor.execute("ringbuf-write", {"data": "x" * 4_000_000}, timeout=0.3)
        done.set()


def test_an_event_that_comes_later_ends_the_waiting(tmp_path: Path) -> None:
    def behave(peer: socket.socket) -> None:
        peer.sendall(GREETING)
        peer.recv(4096)
        peer.sendall(b'{"return": {}}\r\n')
        peer.recv(4096)
        peer.sendall(b'{"return": {}, "id": 1}\r\n{"event": "DEVICE_DELETED", "data": {"device": "other"}}\r\n')
        peer.sendall(b'{"event": "DEVICE_DELETED", "data": {"device": "mine"}}\r\n')
        peer.recv(4096)

    with impostor(tmp_path, behave) as path, Monitor(path, "vm") as monitor:
        assert monitor.execute_and_wait(
            "device_del", ["DEVICE_DELETED"], 3600.0, {"id": "mine"}, lambda event: event["data"] == {"device": "mine"}
        )


def test_room_among_the_waiting_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "crowded"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        crowd = []
        with suppress(BlockingIOError):
            while True:
                crowd.append(socket.socket(socket.AF_UNIX))
                crowd[-1].setblocking(False)
                crowd[-1].connect(str(path))

        def serve() -> None:
            for _ in crowd[:-1]:
                server.accept()[0].close()
            with server.accept()[0] as peer:
                peer.sendall(GREETING)
                peer.recv(4096)
                peer.sendall(b'{"return": {}, "id": "x"}\r\n')
                peer.recv(4096)

        thread = threading.Timer(0.3, serve)
        thread.start()
        with Monitor(path, "vm", greeting=60.0):
            pass
        thread.join()
        for one in crowd:
            one.close()


def test_many_are_asked_at_once_and_each_answers_for_itself(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    with bare_qemu(folders[0]) as (_, good), bare_qemu(folders[1]) as (stuck, silent):
        stuck.send_signal(signal.SIGSTOP)
        questions: list[Command] = [("query-status", {}), ("no-such", {})]
        paths = {"good": good, "silent": silent, "gone": folders[2] / "qmp"}
        for timeout in (0.5, 2.0, 8.0, 32.0):  # a slow machine takes longer over the good one, too
            answers = ask_many({name: (path, questions) for name, path in paths.items()}, timeout)
            if not isinstance(answers["good"], Unreachable):
                break
    assert isinstance(answers["good"], list)
    assert answers["good"][0]["running"] is False
    assert isinstance(answers["good"][1], Refused)
    assert isinstance(answers["silent"], Unreachable)
    assert isinstance(answers["gone"], Unreachable)


def test_asking_nobody_costs_nothing() -> None:
    assert ask_many({}, 1.0) == {}


def test_nothing_of_ours_stays_open(tmp_path: Path) -> None:
    with bare_qemu(tmp_path) as (child, path):
        before = opened()
        for _ in range(5):
            with Monitor(path, "vm") as monitor:
                monitor.execute("query-status")
        ask_many({"vm": (path, [("query-status", {})])}, 2.0)
        child.send_signal(signal.SIGSTOP)
        for _ in range(3):
            with pytest.raises(Unreachable), Monitor(path, "vm", greeting=0.1):
                pass
        assert opened() <= before


def opened() -> set[tuple[str, str]]:
    """What this process has open: what an earlier test has left may be closed meanwhile."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this very look
            found.add((link.name, os.readlink(link)))
    return found
