"""The monitor for people: one command, a conversation, and one client at a time; ours is not disturbed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from reconciler.backends.qemu import people
from reconciler.problems import Refused, Unreachable, UsageError
from tests.support.qemu import Lab

VM = "VirtualMachine/vm"


def test_people_talk_to_qemu(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lab.converge(lab.idle())
    path = lab.folder().people
    assert people.say(path, VM, ["query-status"]) == 0
    assert json.loads(capsys.readouterr().out)["running"] is True
    people.say(path, VM, ["human-monitor-command", "command-line=info name"])
    people.say(path, VM, ["query-command-line-options", 'option="name"'])
    assert '"option": "name"' in capsys.readouterr().out
    with pytest.raises(Refused, match="no-such has not been found"):
        people.say(path, VM, ["no-such"])
    with pytest.raises(UsageError, match="expected NAME=VALUE, got 'option'"):
        people.say(path, VM, ["query-status", "option"])

    monkeypatch.setenv("HOME", str(tmp_path))  # the shell keeps its history there
    monkeypatch.setattr("sys.stdin", io.StringIO("query-name\nstop\n"))
    assert people.converse(path, VM) == 0
    assert "Connected to QEMU" in capsys.readouterr().out
    people.say(path, VM, ["query-status"])
    assert json.loads(capsys.readouterr().out)["status"] == "paused"


def test_one_at_a_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.converge(lab.idle())
    path = lab.folder().people
    monkeypatch.setattr(people, "GREETING", 0.2)
    with (
        people._greeted(path, VM),
        pytest.raises(Unreachable, match="somebody else is at it"),
    ):
        people.say(path, VM, ["query-status"])
    lab.converge(lab.idle())  # by our own monitor, meanwhile and afterwards
    with pytest.raises(Unreachable, match="nobody listens there"):
        people.say(path.with_name("none.sock"), VM, ["query-status"])
