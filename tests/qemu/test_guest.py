"""Inside the guest: files and commands, readiness, exec by agent and by serial console, logs, the cloud-init seed."""

from __future__ import annotations

import os
import pty
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import agent, serial
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.readiness import addresses
from reconciler.cli.copying import pull, push
from reconciler.model import Desired, ResourceId, Verb
from reconciler.ports import Call
from reconciler.problems import Interrupted, Refused, Unreachable
from tests.support.qemu import IDLE_SAYS, Lab, files

VM = ResourceId("VirtualMachine", "vm")


def with_files(want: Desired, contents: Mapping[str, bytes], mode: str = "0644", **spec: Any) -> Desired:
    given, payload = files(contents, mode)
    return replace(want, spec={**want.spec, "files": given, **spec}, payload=payload)


def command(text: str, when: str = "create") -> dict[str, Any]:
    return {"command": ["sh", "-c", text], "when": when, "timeout": 10}


def test_files_and_commands_at_their_moments(linux: Lab) -> None:
    runs = [command(f"echo {when} >> /tmp/ran", when) for when in ("create", "start", "change")]
    want = with_files(linux.busybox(), {"/etc/deep/er/one": b"1\n"}, "0600", run=runs)
    linux.converge(want)
    assert linux.inside("cat", "/etc/deep/er/one") == "1"
    assert linux.inside("stat", "-c", "%a %u", "/etc/deep/er/one") == "600 0"
    assert linux.inside("cat", "/tmp/ran").split() == ["create", "start", "change"]

    changed = with_files(want, {"/etc/deep/er/one": b"2\n", "/big": os.urandom(700_000)}, run=runs)
    assert linux.converge(changed) == [Verb.UPDATE]
    assert linux.inside("cat", "/etc/deep/er/one") == "2"
    assert linux.inside("wc", "-c", "/big").split()[0] == "700000"
    assert linux.inside("cat", "/tmp/ran").split() == ["create", "start", "change", "change"]

    edited = replace(changed, spec={**changed.spec, "run": [*runs[:2], command("echo edited >> /tmp/ran", "change")]})
    assert linux.converge(edited) == [Verb.UPDATE]
    assert linux.inside("cat", "/tmp/ran").split()[4:] == ["edited"]


def test_a_file_no_longer_declared_goes_unless_somebody_changed_it(linux: Lab) -> None:
    paths = ("/etc/kept", "/etc/goes", "/etc/edited", "/etc/missing", "/etc/linked", "/etc/secret")
    want = with_files(linux.busybox(), dict.fromkeys(paths, b"1\n"))
    want.spec["files"]["/etc/secret"]["secret"] = True  # goes in any case: its digest can be compared with nothing
    linux.converge(want)
    linux.inside("sh", "-c", "echo mine >> /etc/edited; rm /etc/missing; mv /etc/linked /etc/a; ln -s a /etc/linked")
    linux.inside("sh", "-c", "echo mine >> /etc/secret")
    boot = linux.boot_id()
    linux.converge(with_files(linux.busybox(), {"/etc/kept": b"1\n"}))
    left = linux.inside("sh", "-c", "cd /etc; ls -d kept goes edited missing linked secret 2>/dev/null; true").split()
    assert left == ["edited", "kept", "linked"]
    assert any("/etc/edited" in told and "leaving" in told for told in linux.told)
    assert linux.boot_id() == boot


def test_a_guest_that_lives_in_memory_gets_its_files_again(linux: Lab) -> None:
    want = with_files(linux.busybox(), {"/etc/one": b"1\n"}, run=[command("echo start >> /tmp/ran", "start")])
    linux.converge(want)
    linux.backend.power(VM, "restart", False, 120.0, linux.told.append)
    assert linux.ask("test", "-e", "/etc/one").code == 1
    assert linux.verbs(want) == [Verb.UPDATE]
    linux.converge(want)
    assert linux.inside("cat", "/etc/one", "/tmp/ran").split() == ["1", "start"]


def test_a_command_that_fails_is_tried_again_by_the_next_apply(linux: Lab) -> None:
    want = replace(linux.busybox(), spec={**linux.busybox().spec, "run": [command("echo no >&2; test -e /tmp/ok")]})
    problem = linux.fail(want)
    assert "ended with 1" in problem.summary
    assert problem.detail == "no"
    assert linux.verbs(want) == [Verb.UPDATE]
    linux.inside("touch", "/tmp/ok")
    linux.converge(want)


def test_a_command_that_takes_too_long_has_failed_and_is_not_repeated(linux: Lab) -> None:
    slow = {**command("echo once >> /tmp/ran; sleep 600"), "timeout": 1}
    problem = linux.fail(linux.busybox(run=[slow]))
    assert "did not end within 1 s" in problem.summary
    assert linux.inside("sh", "-c", "until [ -s /tmp/ran ]; do usleep 50000; done; cat /tmp/ran") == "once"


def test_others_may_use_the_agent_during_a_long_command(linux: Lab) -> None:
    linux.converge(linux.busybox())
    codes: list[int] = []
    script = "touch /tmp/begun; until [ -e /tmp/go ]; do usleep 50000; done; exit 5"
    long = threading.Thread(target=lambda: codes.append(linux.ask("sh", "-c", script).code))
    long.start()
    while linux.ask("test", "-e", "/tmp/begun").code != 0:
        assert long.is_alive()
    assert linux.inside("echo", "hello") == "hello"
    assert long.is_alive()
    linux.inside("touch", "/tmp/go")
    long.join()
    assert codes == [5]


def test_conditions(linux: Lab) -> None:
    ready = {"guestAgent": True, "tcp": 7777, "log": "reconciler-guest: ready", "timeout": 160}
    listening = command("httpd -p 7777 -h /tmp")
    linux.converge(linux.busybox(ready=ready, run=[listening]))
    found = {one.type: one.status for one in linux.backend.probe(linux.look())}
    assert found == {"Ready": True, "GuestAgent": True, "Tcp": True, "Log": True}
    linux.inside("sh", "-c", "killall httpd; while pidof httpd; do usleep 50000; done")
    found = {one.type: one.status for one in linux.backend.probe(linux.look())}
    assert (found["Ready"], found["Tcp"]) == (False, False)


def test_conditions_that_the_guest_is_asked_about(linux: Lab) -> None:
    result = '{"v1": {"datasource": null, "errors": []}}'
    ready = {"ip": True, "command": ["test", "-e", "/tmp/up"], "cloudInit": True, "timeout": 160}
    given = {**linux.busybox().spec, "nics": {"eth0": {"type": "user", "model": "virtio-net-pci"}}}
    runs = [command(f"touch /tmp/up; mkdir -p /run/cloud-init; echo '{result}' > /run/cloud-init/result.json")]
    linux.converge(replace(linux.busybox(), spec={**given, "ready": ready, "run": runs}))
    seen = linux.look()
    found = {one.type: (one.status, one.reason) for one in linux.backend.probe(seen)}
    assert found == {
        "Ready": (True, "AllHold"),
        "Ip": (True, "HasAddress"),
        "Command": (True, "Succeeded"),
        "CloudInit": (True, "Done"),
    }
    worse = """rm /tmp/up; echo '{"errors": ["x"]}' > /run/cloud-init/result.json"""
    linux.inside("sh", "-c", worse)
    found = {one.type: (one.status, one.reason) for one in linux.backend.probe(seen)}
    assert (found["Command"], found["CloudInit"]) == ((False, "Failed"), (False, "Errors"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["127.0.0.1", "::1"], []),
        (["fe80::1"], []),
        (["10.0.2.15", "fe80::1", "fd00::2"], ["10.0.2.15", "fd00::2"]),
    ],
)
def test_addresses_that_others_can_reach(given: list[str], expected: list[str]) -> None:
    interfaces: list[dict[str, Any]] = [
        {"name": "x", "ip-addresses": [{"ip-address": one} for one in given]},
        {"name": "down"},
    ]
    assert addresses(interfaces) == expected


def test_conditions_of_a_vm_that_is_down_are_not_known(lab: Lab) -> None:
    lab.converge(lab.idle(power="stopped"))
    assert [(one.type, one.status) for one in lab.backend.probe(lab.look())] == [("Ready", None)]


def executed(lab: Lab, capfdbinary: pytest.CaptureFixture[bytes], *words: str, **environment: str) -> tuple[int, bytes]:
    code = lab.backend.execute(VM, Call(words, environment, timeout=60.0))
    return code, capfdbinary.readouterr().out


def test_exec_through_the_agent(linux: Lab, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    linux.converge(linux.busybox())
    assert executed(linux, capfdbinary, "sh", "-c", 'echo "$A"; exit 7', A="b c") == (7, b"b c\n")
    assert executed(linux, capfdbinary, "sh", "-c", "kill -9 $$")[0] == 137
    assert executed(linux, capfdbinary, "head", "-c", "300000", "/dev/zero") == (0, bytes(300_000))
    assert linux.backend.execute(VM, Call(["no-such-program"], timeout=60.0)) == 127
    assert capfdbinary.readouterr() == (b"", b"VirtualMachine/vm: no-such-program: No such file or directory\n")
    assert linux.backend.execute(VM, Call(["/etc/passwd"], timeout=60.0)) == 126
    assert capfdbinary.readouterr() == (b"", b"VirtualMachine/vm: /etc/passwd: Permission denied\n")
    script = ["sh", "-c", 'id -u; echo "$A:$HOME:$1"; exit 7', "x", "a 'b"]
    for who in ("daemon", "1"):
        assert linux.backend.execute(VM, Call(script, {"A": "b c"}, timeout=60.0, user=who)) == 7
        assert capfdbinary.readouterr().out == b"1\nb c:/:a 'b\n"
    with pytest.raises(Refused, match="there is no account"):
        linux.backend.execute(VM, Call(["true"], timeout=60.0, user="daemon; id"))
    came = iter([(), (15,)])
    with Agent(linux.folder().agent, "vm", patience=60.0) as agent:
        assert agent.run(["sleep", "600"], 60, signals=lambda: next(came, ())).code == 143
    with pytest.raises(Interrupted, match="did not end within"):
        linux.backend.execute(VM, Call(["sleep", "600"], timeout=3.0))


def test_files_go_in_and_out_through_the_agent(linux: Lab, tmp_path: Path) -> None:
    linux.converge(linux.busybox())
    tree = tmp_path / "tree"
    (tree / "sub folder").mkdir(parents=True)
    (tree / "big").write_bytes(os.urandom(300_000))
    (tree / "big").chmod(0o640)
    (tree / "sub folder/-odd").write_text("odd")
    (tree / "link").symlink_to("sub folder/-odd")
    told: list[str] = []
    with linux.backend.files(VM) as files:
        push(files, tree, "/root", told.append)
    assert linux.ask("stat", "-c", "%a %u", "/root/tree/big").out == b"640 0\n"
    linux.inside("sh", "-c", "cd /root/tree && ln -s /etc/passwd out && mkfifo pipe && chmod 4755 sub*/-odd")
    with linux.backend.files(VM) as files:
        pull(files, "/root/tree", tmp_path / "back", told.append)
    assert sorted(words.partition(":")[0] for words in told) == ["/root/tree/out", "/root/tree/pipe"]
    assert (tmp_path / "back/big").read_bytes() == (tree / "big").read_bytes()
    assert (tmp_path / "back/sub folder/-odd").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "back/link").read_text() == "odd"


def test_exec_over_the_serial_console(linux: Lab, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    linux.converge(linux.busybox(guestAgent=False, ready={"log": "reconciler-guest: ready", "timeout": 160}))
    assert executed(linux, capfdbinary, "sh", "-c", 'echo "$A"; exit 7', A="b 'c") == (7, b"b 'c\n")
    code, out = executed(linux, capfdbinary, "seq", "1", "3000")
    assert (code, out.split()) == (0, [str(number).encode() for number in range(1, 3001)])
    assert executed(linux, capfdbinary, "sh", "-c", "kill -9 $$")[0] == 137
    with pytest.raises(Refused, match="does not fit"):
        executed(linux, capfdbinary, "echo", "x" * 5000)


def test_exec_where_nobody_answers(lab: Lab) -> None:
    lab.converge(lab.idle())
    with pytest.raises(Refused, match="neither a guest agent nor a shell"):
        lab.backend.execute(VM, Call(["true"], timeout=60.0))
    lab.converge(lab.idle(power="stopped"))
    with pytest.raises(Refused, match="not running"):
        lab.backend.execute(VM, Call(["true"], timeout=60.0))


def test_what_a_vm_takes_is_what_its_qemu_takes(lab: Lab) -> None:
    began = time.time()
    lab.converge(lab.idle())
    [(id, taken)] = lab.backend.usage().items()
    assert id == VM
    assert taken.cpu > 0 and taken.memory > 1 << 20 and taken.processes is None
    assert taken.started is not None and began - 2 <= taken.started <= time.time() + 2  # two clocks
    assert lab.backend.addresses() == {}  # it has no card
    lab.converge(lab.idle(power="stopped"))
    assert lab.backend.usage() == {}


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Our side of a terminal, and its other end."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def test_shell_is_the_serial_console_until_ctrl_bracket(linux: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    linux.converge(linux.busybox())
    codes: list[int] = []
    with terminal() as (ours, theirs), os.fdopen(os.dup(theirs)) as stdin, os.fdopen(os.dup(theirs), "w") as stdout:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        person = threading.Thread(target=lambda: codes.append(linux.backend.shell(VM)))
        person.start()
        said = b""
        while b"# " not in said:
            said += os.read(ours, 4096)
        os.write(ours, b"echo $((6*7))-ok\r")
        while b"42-ok" not in said:
            said += os.read(ours, 4096)
        os.write(ours, serial.ESCAPE)
        person.join(60)
    assert codes == [0]


def test_logs_are_what_the_guest_said(lab: Lab) -> None:
    lab.converge(lab.idle())
    assert IDLE_SAYS.encode() in b"".join(lab.backend.logs(VM, False))
    following = lab.backend.logs(VM, True)
    assert IDLE_SAYS.encode() in next(following)
    lab.converge(lab.idle(power="stopped"))
    assert isinstance(b"".join(following), bytes)  # it ends with the guest
    with pytest.raises(Refused, match="no such VM"):
        next(iter(lab.backend.logs(ResourceId("VirtualMachine", "none"), False)))


def test_the_seed_is_read_by_the_guest(linux: Lab) -> None:
    cloud_init = {
        "userData": "#!/bin/sh\necho seeded > /tmp/seeded\n",
        "networkConfig": "version: 2\n",
        "metaData": "local-hostname: seed-host\n",
    }
    linux.converge(linux.busybox(cloudInit=cloud_init))
    # The agent may be asked before the seed was read, and what is in it runs beside everything else.
    linux.inside("sh", "-c", "until [ $(hostname) = seed-host ] && grep -q seeded /tmp/seeded; do usleep 100000; done")
    linux.inside("mkdir", "/seed")
    linux.inside("sh", "-c", "mount -o ro $(blkid -L cidata 2>/dev/null || echo /dev/vda) /seed")
    assert linux.inside("ls", "/seed").split() == ["meta-data", "network-config", "user-data"]
    assert "instance-id: " in linux.inside("cat", "/seed/meta-data")


def test_an_agent_that_was_left_half_spoken_to_answers(linux: Lab) -> None:
    linux.converge(linux.busybox())
    path = linux.folder().agent
    with Agent(path, "first", patience=60.0) as first:
        first._socket.sendall(b'{"execute": "guest-ping", "argu')
    with Agent(path, "second", patience=60.0) as second:
        second.tell("guest-info")  # and its answer is never read
    with Agent(path, "third", patience=60.0) as third:
        assert third.execute("guest-ping") == {}


def test_a_connection_to_the_agent_is_kept_for_a_moment_and_left_when_it_is_dead(
    linux: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux.converge(linux.busybox())
    path = linux.folder().agent
    monkeypatch.setattr(agent, "_LONGEST", 600.0)  # a moment that no slow machine outlasts
    monkeypatch.setattr(agent, "_KEPT_FOR", 600.0)
    with Agent(path, "first") as first:
        sock = first._socket
    monkeypatch.setattr(agent, "_KEPT_FOR", 0.01)
    with Agent(path, "second") as second:
        assert second._socket is sock
    deadline = time.monotonic() + 60
    while sock.fileno() != -1:  # closed, so that others have their turn
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ours, its = socket.socketpair()
    its.close()
    agent._keep(path, ours, time.monotonic())
    with Agent(path, "third", keep=False) as third:
        assert third.execute("guest-ping") == {}
    assert path not in agent._kept


def test_a_silent_agent_is_unreachable_in_time(lab: Lab) -> None:
    lab.converge(lab.idle(guestAgent=True))
    with pytest.raises(Unreachable, match="did not answer"), Agent(lab.folder().agent, "vm", patience=0.5):
        pass


def test_what_needs_an_agent_says_so(lab: Lab) -> None:
    want = with_files(lab.idle(guestAgent=True, ready={"log": IDLE_SAYS, "timeout": 1}), {"/x": b""})
    problem = lab.fail(want)
    assert "the guest agent does not answer" in problem.summary
