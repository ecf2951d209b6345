"""Inside the guest: files, commands, readiness, last words, logs, exec and shell, with a real init."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from reconciler.backends.lxd import session
from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Outcome, Power, ResourceId, Result, Verb
from reconciler.ports import Call
from reconciler.problems import Refused
from tests.support.lxd import Lab

PAYLOAD = {"one": b"first\n", "two": b"second\n", "big": os.urandom(300_000)}


def file(sha256: str, mode: str = "0644", owner: str = "0:0") -> dict[str, str]:
    return {"sha256": sha256, "mode": mode, "owner": owner}


def problem_of(outcomes: list[Outcome]) -> str:
    assert outcomes[0].result is Result.FAILED
    return str(outcomes[0].problem)


def test_files_arrive_with_mode_and_owner_and_change_when_the_manifest_does(lab: Lab) -> None:
    name = lab.lxd.name()
    files = {"/etc/app/conf": file("one", "0640", "7:8"), "/opt/big": file("big")}
    lab.converge(lab.container(name, payload=PAYLOAD, files=files))
    assert lab.inside(name, "stat", "-c", "%a %u:%g", "/etc/app/conf").strip() == "640 7:8"
    assert lab.inside(name, "stat", "-c", "%s", "/opt/big").strip() == "300000"
    began = lab.init_start(name)
    lab.converge(lab.container(name, payload=PAYLOAD, files={**files, "/etc/app/conf": file("two", "0600")}))
    assert lab.inside(name, "cat", "/etc/app/conf") == "second\n"
    assert lab.inside(name, "stat", "-c", "%a %u:%g", "/etc/app/conf").strip() == "600 0:0"
    assert lab.init_start(name) == began


def test_a_file_no_longer_declared_goes_unless_somebody_changed_it(lab: Lab) -> None:
    name = lab.lxd.name()
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in PAYLOAD.items()}
    payload = {digests[path]: data for path, data in PAYLOAD.items()}
    paths = ("/etc/kept", "/etc/goes", "/etc/edited", "/etc/missing", "/etc/linked")
    files = {path: file(digests["one"]) for path in paths}
    lab.converge(lab.container(name, payload=payload, files=files))
    lab.inside(
        name, "sh", "-c", "echo mine >> /etc/edited; rm /etc/missing; mv /etc/linked /etc/a; ln -s a /etc/linked"
    )
    began = lab.init_start(name)
    lab.converge(lab.container(name, payload=payload, files={"/etc/kept": file(digests["one"])}))
    left = lab.inside(name, "sh", "-c", "cd /etc; ls -d kept goes edited missing linked 2>/dev/null; true").split()
    assert left == ["edited", "kept", "linked"]
    assert any("/etc/edited" in told and "leaving" in told for told in lab.told)
    assert lab.init_start(name) == began
    lab.converge(lab.container(name, power="stopped", payload=payload))
    lab.converge(lab.container(name))
    assert lab.inside(name, "sh", "-c", "ls /etc/kept 2>/dev/null; true") == ""


def test_files_reach_a_container_that_stays_down(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, power="stopped", payload=PAYLOAD, files={"/early": file("one")}))
    lab.converge(lab.container(name, payload=PAYLOAD, files={"/early": file("one")}))
    assert lab.inside(name, "cat", "/early") == "first\n"


def test_a_file_where_none_can_be_is_refused_by_name(lab: Lab) -> None:
    outcomes = lab.apply(lab.container(lab.lxd.name(), payload=PAYLOAD, files={"/etc/passwd/sub": file("one")}))
    assert "/etc/passwd" in problem_of(outcomes)


def test_commands_run_when_they_should(lab: Lab) -> None:
    name = lab.lxd.name()
    run = [
        {"command": ["sh", "-c", f"echo {when} >> /log"], "when": when, "timeout": 60} for when in ("create", "start")
    ]
    run.append({"command": ["sh", "-c", "echo change >> /log"], "when": "change", "timeout": 60})
    lab.converge(lab.container(name, run=run))
    assert lab.inside(name, "cat", "/log").split() == ["create", "start"]
    lab.converge(lab.container(name, run=run, power="stopped"))
    lab.converge(lab.container(name, run=run))
    assert lab.inside(name, "cat", "/log").split() == ["create", "start", "start"]
    lab.converge(lab.container(name, run=run, payload=PAYLOAD, files={"/x": file("one")}))
    assert lab.inside(name, "cat", "/log").split() == ["create", "start", "start", "change"]


def test_what_is_created_stopped_has_its_commands_run_at_its_first_start(lab: Lab) -> None:
    name = lab.lxd.name()
    run = [{"command": ["sh", "-c", "echo create >> /log"], "when": "create", "timeout": 60}]
    lab.converge(lab.container(name, run=run, power="stopped"))
    lab.converge(lab.container(name, run=run, power="stopped", config={"user.x": "1"}))
    for power in ("running", "stopped", "running"):
        lab.converge(lab.container(name, run=run, power=power))
    assert lab.inside(name, "cat", "/log").split() == ["create"]


def test_a_failing_command_fails_the_step_and_is_taken_up_again(lab: Lab) -> None:
    name = lab.lxd.name()
    run = [{"command": ["sh", "-c", "echo no such thing; test -e /ok"], "when": "create", "timeout": 60}]
    outcomes = lab.apply(lab.container(name, run=run))
    assert "exit code 1" in problem_of(outcomes) and "no such thing" in problem_of(outcomes)
    lab.inside(name, "touch", "/ok")
    assert [one.step.verb for one in lab.converge(lab.container(name, run=run))] == [Verb.UPDATE]


def test_a_command_that_takes_too_long_is_killed(lab: Lab) -> None:
    name = lab.lxd.name()
    outcomes = lab.apply(lab.container(name, run=[{"command": ["sleep", "4321"], "when": "create", "timeout": 1}]))
    assert "took longer than 1 s" in problem_of(outcomes)
    assert "sleep 4321" not in lab.inside(name, "ps")


@pytest.mark.parametrize(
    ("ready", "type"),
    [
        ({"log": "reconciler-guest: ready"}, "Log"),
        ({"command": ["true"]}, "Command"),
        ({"tcp": 7777}, "Tcp"),
    ],
)
def test_readiness_is_waited_for_and_shown(lab: Lab, ready: dict[str, object], type: str) -> None:
    name = lab.lxd.name()
    listen = [{"command": ["sh", "-c", "nc -ll -p 7777 -e true >/dev/null 2>&1 &"], "when": "start", "timeout": 60}]
    lab.converge(lab.container(name, ready={**ready, "timeout": 120}, run=listen))
    seen = lab.look().resources[ResourceId("Container", name)]
    for _ in range(2):  # looking does not use it up
        conditions = {one.type: one.status for one in lab.backend.probe(seen)}
        assert conditions == {type: True, "Ready": True}
    lab.backend.power(seen.id, "stop", True, 5, lab.told.append)
    assert {one.status for one in lab.backend.probe(seen)} == {None}


def test_what_never_gets_ready_fails_with_what_was_missing(lab: Lab) -> None:
    name = lab.lxd.name()
    ready = {"command": ["test", "-e", "/never"], "log": "reconciler-guest", "timeout": 2}
    outcomes = lab.apply(lab.container(name, ready=ready))
    assert "Command: test ended with exit code 1" in problem_of(outcomes)
    lab.inside(name, "touch", "/never")
    lab.converge(lab.container(name, ready={**ready, "timeout": 120}))


def test_an_init_that_exits_leaves_its_last_words_and_is_taken_up_again(lab: Lab) -> None:
    name = lab.lxd.name()
    dying = {"raw.lxc": "lxc.init.cmd = /bin/uname -o"}
    for _ in range(2):
        outcomes = lab.apply(lab.container(name, config=dying))
        said = problem_of(outcomes)
        assert "went down right after its start" in said and "GNU/Linux" in said
    assert outcomes[0].step.verb is Verb.UPDATE
    lab.converge(lab.container(name, config={"raw.lxc": "# mended"}))
    assert lab.look().resources[ResourceId("Container", name)].power is Power.RUNNING


def test_an_init_that_is_not_there_says_so(lab: Lab) -> None:
    outcomes = lab.apply(lab.container(lab.lxd.name(), config={"raw.lxc": "lxc.init.cmd = /no/such/init"}))
    assert 'Failed to exec "/no/such/init"' in problem_of(outcomes)


def test_logs_show_the_console_however_often_they_are_read(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, ready={"log": "ready", "timeout": 120}))
    id = ResourceId("Container", name)
    first = b"".join(lab.backend.logs(id, follow=False))
    assert b"reconciler-guest: ready" in first
    assert b"".join(lab.backend.logs(id, follow=False)).startswith(first)
    lab.inside(name, "sh", "-c", "echo one more line > /dev/console")
    followed = lab.backend.logs(id, follow=True)
    seen = next(followed)
    while b"one more line" not in seen:
        seen += next(followed)
    lab.backend.power(id, "stop", True, 5, lab.told.append)
    seen += b"".join(followed)
    assert seen.count(b"reconciler-guest: ready") == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -15 $$"], 143),
        (["/no/such/command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exec_gives_the_exit_code(lab: Lab, words: list[str], code: int) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    assert lab.backend.execute(ResourceId("Container", name), Call(words, timeout=60)) == code


def test_exec_streams_environment_and_input(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    words = ["sh", "-c", 'echo "$GREETING"; echo oops >&2']
    assert lab.backend.execute(ResourceId("Container", name), Call(words, {"GREETING": "hi"}, timeout=60)) == 0
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("hi\n", "oops\n")


def test_a_megabyte_goes_through_cat_and_back(lab: Lab, tmp_path: Path) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    data = os.urandom(1 << 20)
    source = tmp_path / "in"
    source.write_bytes(data)
    back = bytearray()
    with source.open("rb") as stdin:
        command = session.Command(["cat"], back.extend, back.extend, stdin=stdin.fileno())
        assert session.run(lab.client, name, command, Deadline.after(120)) == 0
    assert bytes(back) == data


def test_quick_commands_lose_nothing(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    for number in range(100):
        assert lab.inside(name, "echo", str(number)) == f"{number}\n"


def test_exec_that_takes_too_long_is_killed(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    assert lab.backend.execute(ResourceId("Container", name), Call(["sleep", "4321"], timeout=3.0)) == 124
    assert "sleep 4321" not in lab.inside(name, "ps")


def test_exec_in_a_stopped_container_is_refused(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, power="stopped"))
    with pytest.raises(Refused, match="not running"):
        lab.backend.execute(ResourceId("Container", name), Call(["true"], timeout=60.0))


SHELL = """
import sys
from pathlib import Path
from reconciler.backends.lxd.backend import LxdBackend
from reconciler.model import ResourceId
from reconciler.ports import Settings
state = Path(sys.argv[2])
backend = LxdBackend("lxd/local", {"socket": sys.argv[1]}, Settings("tests", state, state / "run"))
sys.exit(backend.shell(ResourceId("Container", sys.argv[3])))
"""


def test_a_shell_on_a_terminal(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    words = [sys.executable, "-c", SHELL, str(lab.lxd.socket), str(lab.lxd.state), name]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as shell:
        os.close(theirs)
        try:
            hear(ours, b":~#")
            os.write(ours, b"stty size; echo $((6*7))\n")
            hear(ours, b"33 101\r\n42\r\n")
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 102, 0, 0))
            os.write(ours, b"while ! stty size | grep '44 102'; do sleep 0.1; done\n")
            hear(ours, b"44 102\r\n")
            os.write(ours, b"exit 5\n")
            assert shell.wait(120) == 5
        finally:
            shell.kill()
    os.close(ours)


def hear(terminal: int, words: bytes) -> None:
    """Read until that was said."""
    said, deadline = b"", Deadline.after(120)
    while words not in said:
        assert select.select([terminal], [], [], deadline.left)[0], said
        said += os.read(terminal, 4096)
