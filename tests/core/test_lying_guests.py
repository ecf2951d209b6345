"""What guests say of themselves is read and not believed: odd words are left out or refused, and never end in a bug."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from reconciler import accounts
from reconciler.accounts import Account
from reconciler.backends.lxd import session, within
from reconciler.backends.qemu import readiness, serial
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.agent_files import AgentFiles
from reconciler.backends.qemu.folders import folder_of
from reconciler.backends.qemu.inside import blocks
from reconciler.backends.qemu.listening import listening
from reconciler.problems import Interrupted, Refused, Unreachable
from reconciler.reachable import neighbours
from reconciler.sockets import parse
from tests.core.test_accounts import ADA, PASSWD

Answer = Callable[[dict[str, Any]], dict[str, Any]]
NOTHING = {"error": {"class": "GenericError", "desc": "failed to open file: No such file or directory"}}


@contextmanager
def agent(path: Path, answer: Answer) -> Iterator[None]:
    """A guest agent that says what it likes."""
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=_serve, args=(server, answer))
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(server: socket.socket, answer: Answer) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                asked = json.loads(line.lstrip(b"\xff"))
                synchronises = asked["execute"] == "guest-sync-delimited"
                said = {"return": asked["arguments"]["id"]} if synchronises else answer(asked)
                connection.sendall(b"\xff" * synchronises + json.dumps(said).encode() + b"\n")


@pytest.mark.parametrize("zone", ["eth0", "x\n6.6.6.6\tbank.example"])
def test_an_address_brings_no_line_of_its_own_into_the_hosts_file(zone: str) -> None:
    claimed = f"fd42::5%{zone}"
    assert neighbours([claimed, "fd42::6"], [ip_network("fd42::/64")]) == ["fd42::6"]
    assert readiness.addresses([{"ip-addresses": [{"ip-address": claimed}, {"ip-address": "fd42::6"}]}]) == ["fd42::6"]


def test_an_address_that_is_none_is_left_out() -> None:
    told = [{"ip-addresses": [{"ip-address": "nonsense"}, {}, {"ip-address": "10.0.0.1"}]}]
    assert readiness.addresses(told) == ["10.0.0.1"]


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0c", "\x1c", "\r"])
def test_what_people_call_themselves_begins_no_new_line(end: str) -> None:
    passwd = PASSWD.replace("Ada,,,", f"Ada{end}eve:x:0:0:,,,").replace("eve:x:0:0:", "eve")
    assert accounts.find_account(passwd, "ada") == ADA
    moved = accounts.with_account(passwd, Account("ada", 1000, 1001, "/elsewhere", "/bin/sh"))
    assert moved == passwd.replace("/home/ada", "/elsewhere")
    assert accounts.with_shadow(f"ada:a{end}b:::::::\n", "eve") == f"ada:a{end}b:::::::\neve:*:::::::\n"
    assert accounts.with_member(f"a:x:1:b{end}c\n", "a", "d") == f"a:x:1:b{end}c,d\n"


def test_a_number_that_nobody_can_have_is_no_account() -> None:
    endless = "9" * 5000
    assert list(accounts.accounts(f"eve:x:{endless}:1::/:\neve:x:1:{endless}::/:\n")) == []
    assert list(accounts.groups(f"eve:x:{endless}:\n")) == []
    assert accounts.find_account(PASSWD, endless) is None


@pytest.mark.parametrize(
    "row", ["x:0016", "0100007F:x", ":", "0100007F:", "0100007F:99999", "-100007F:0016", "00:0016", "0" * 33 + ":0016"]
)
def test_a_line_that_is_no_socket_is_passed_over(row: str) -> None:
    table = f"0: {row} 0:0 0A 0\n1: 0100007F:0016 0:0 0A 0\n"
    assert list(parse(table, "tcp")) == [("tcp", "127.0.0.1", 22)]
    assert readiness.listening(f"0: {row} 0:0 0A 0\n1: 00000000:0016 0:0 0A 0\n") == {22}


def test_a_mount_point_that_no_kernel_writes() -> None:
    assert within.parse(rb"1 1 0:1 / /a\999\777\040b rw") == {r"/a\999\777 b": "0:1"}


def test_of_a_command_that_does_not_stop_talking_the_end_is_kept() -> None:
    said, part = session.Last(), bytes(session.MOST // 4)
    for _ in range(40):
        said.add(part)
        assert len(said.kept) <= 2 * session.MOST
    said.add(b"end")
    assert said.kept.endswith(b"end") and len(said.kept) >= session.MOST


@pytest.mark.parametrize("refused", [{"tcp6", "udp6"}, {"tcp", "tcp6", "udp", "udp6"}])
def test_an_agent_that_may_read_nothing_does_not_say_that_nothing_listens(tmp_path: Path, refused: set[str]) -> None:
    folder = folder_of(tmp_path, tmp_path, "vm")
    table = "IDA6IDAwMDAwMDAwOjFGOTAgMDowIDBBIDAK"  # " 0: 00000000:1F90 0:0 0A 0"

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        if asked["execute"] != "guest-file-open":
            eof = {"count": 27, "buf-b64": table, "eof": True}
            return {"return": eof if asked["execute"] == "guest-file-read" else {}}
        return NOTHING if asked["arguments"]["path"].rpartition("/")[2] in refused else {"return": 1}

    with agent(folder.agent, answer):
        if len(refused) == 4:
            with pytest.raises(Unreachable, match="cannot be read"):
                listening(folder, "VirtualMachine/vm")
        else:
            assert listening(folder, "VirtualMachine/vm") == {("tcp", "0.0.0.0", 8080)}


def use(one: Agent) -> None:
    one.run(["true"], 30.0)
    one.write_file("/x", b"x")
    one.read_file("/x")


ANSWERS: dict[str, list[Any]] = {
    "guest-exec": [None, [], {}, {"pid": None}, {"pid": "x"}],
    "guest-exec-status": [7, {}, {"exited": 1, "exitcode": "x"}, {"exited": True, "out-data": 7}],
    "guest-file-write": ["x", {}, {"count": {}}],
    "guest-file-read": [[1], {"buf-b64": ""}, {"buf-b64": "x", "eof": True, "count": 1}],
}


@pytest.mark.parametrize(("command", "said"), [(name, said) for name, given in ANSWERS.items() for said in given])
def test_an_answer_that_lacks_what_was_asked_for_is_no_answer(tmp_path: Path, command: str, said: object) -> None:
    good = {
        "guest-exec": {"pid": 1},
        "guest-exec-status": {"exited": True, "exitcode": 0},
        "guest-file-open": 1,
        "guest-file-write": {"count": 1},
        "guest-file-read": {"buf-b64": "eA==", "count": 1, "eof": True},
    }
    place, garbled = tmp_path / "vm" / "agent", pytest.raises(Interrupted, match=f"answer to {command} is garbled")
    answers = {**good, command: said}
    with agent(place, lambda asked: {"return": answers.get(asked["execute"])}), Agent(place, "vm") as one, garbled:
        use(one)


@pytest.mark.parametrize("said", [{"error": None}, {"error": "no"}, {"error": {}}, [], 7, "[" * 100_000])
def test_neither_an_answer_nor_a_no(tmp_path: Path, said: Any) -> None:
    place, garbled = tmp_path / "vm" / "agent", pytest.raises(Interrupted, match="is garbled")
    with agent(place, lambda _asked: said), Agent(place, "vm") as one, garbled:
        one.execute("guest-ping")


def test_who_talks_without_end_is_no_agent(tmp_path: Path) -> None:
    place = tmp_path / "agent"

    def talk() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            while True:
                connection.sendall(b'{"return": 7}\n' * 64)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()
        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(Unreachable, match="did not answer"), Agent(place, "vm", patience=0.5):
            pass
        thread.join()


@pytest.mark.parametrize("said", [7, [7], [{"ip-addresses": 7}], [{"ip-addresses": [7]}]])
def test_addresses_that_are_told_in_no_way_that_is_known(tmp_path: Path, said: object) -> None:
    place, garbled = tmp_path / "vm" / "agent", pytest.raises(Interrupted, match="is garbled")
    with agent(place, lambda _asked: {"return": said}), Agent(place, "vm") as one, garbled:
        readiness.told_addresses(one)


@pytest.mark.parametrize("said", ["swap\n", "\n", "vda vda x 0 0\n", "vda vda 1 x 0\n"])
def test_disks_that_are_told_in_no_way_that_is_known(tmp_path: Path, said: str) -> None:
    done = {"exited": True, "exitcode": 0, "out-data": base64.b64encode(said.encode()).decode()}
    answers = {"guest-exec": {"pid": 1}, "guest-exec-status": done}
    place, garbled = tmp_path / "vm" / "agent", pytest.raises(Interrupted, match="is garbled")
    with agent(place, lambda asked: {"return": answers[asked["execute"]]}), Agent(place, "vm") as one, garbled:
        blocks.look(one, "data", "vm")


@pytest.mark.parametrize("said", ["", "zz 0 0\n", "81a4 0\n", "81a4 0 x\n", f"81a4 0 {'9' * 5000}\n"])
def test_what_stands_in_a_guest_is_not_guessed_at(tmp_path: Path, said: str) -> None:
    done = {"exited": True, "exitcode": 0, "out-data": base64.b64encode(said.encode()).decode()}

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        return {"return": {"pid": 1} if asked["execute"] == "guest-exec" else done}

    place, refused = tmp_path / "vm" / "agent", pytest.raises(Refused, match="does not say what it should")
    with agent(place, answer), Agent(place, "vm") as one, refused:
        AgentFiles(one).entry("/etc/passwd")


def test_a_file_is_private_before_there_is_anything_in_it(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(one: dict[str, Any]) -> dict[str, Any]:
        command, given = one["execute"], one.get("arguments", {})
        if command in ("guest-exec", "guest-file-write"):
            asked.append(given.get("path", command).rpartition("/")[2])
        said = {"guest-file-open": 1, "guest-exec": {"pid": 1}, "guest-exec-status": {"exited": True, "exitcode": 0}}
        return {"return": said.get(command, {"count": 6})}

    place = tmp_path / "vm" / "agent"
    with agent(place, answer), Agent(place, "vm") as one:
        AgentFiles(one).write("/root/key", io.BytesIO(b"secret"), 0o600, 0, 0)
    assert asked == ["chown", "chmod", "guest-file-write"]


def test_a_console_may_say_anything_around_what_a_command_says(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def console(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            while b"-begin" not in (heard := connection.recv(65536)):
                for token in re.findall(rb"([0-9a-f]{16}) -here", heard):
                    connection.sendall(token + b"-here\n")
            [token] = set(re.findall(rb"([0-9a-f]{16}) -begin", heard))
            connection.sendall(bytes(1 << 20) + token + b"-begin\nout\n")
            connection.sendall(token + b"-end " + b"9" * 5000 + b"\n" + token + b"-end 7\n")
            connection.recv(1)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "serial"))
        server.listen()
        thread = threading.Thread(target=console, args=(server,))
        thread.start()
        try:
            assert serial.run(tmp_path / "serial", "vm", ["true"], {}, 10.0) == 7
        finally:
            thread.join()
    assert capfdbinary.readouterr().out.startswith(b"out\n")
