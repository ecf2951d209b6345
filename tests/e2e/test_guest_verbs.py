"""The guest verbs beyond the first look: who a shell is, where signals go, what guests take."""

from __future__ import annotations

import os
import select
import signal
import subprocess

import pytest

from tests.e2e.conftest import COMMAND, Place
from tests.e2e.test_commands import IMAGE, at_terminal, container


def test_top_shows_who_works_and_who_rests(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("busy") + container("idle") + container("down", power="stopped"))
    place.ok("apply", file)
    place.ok("exec", "busy", "--", "sh", "-c", "while :; do :; done >/dev/null 2>&1 &")
    taken = {one["id"]: one for one in place.ok("top", "-o", "json").json}
    assert set(taken) == {"Container/busy", "Container/idle"}
    busy, idle = taken["Container/busy"], taken["Container/idle"]
    assert busy["cpu"] > max(1, idle["cpu"] * 2)  # it may get little of them where others work, too
    assert busy["processes"] == idle["processes"] + 1
    assert 0 < idle["memory"] < 64 << 20
    assert 0 <= idle["uptime"] < 600
    shown = place.ok("top", "local/idle").out.splitlines()
    assert shown[0].split() == ["GUEST", "HOST", "CPU", "MEMORY", "PROCESSES", "UPTIME"]
    assert shown[1].startswith("Container/idle  local  ") and len(shown) == 2
    assert "needs a terminal" in place.run("top", "--watch").err
    assert "expected a guest that runs" in place.run("top", "down").err
    assert watched(place, "Container/idle").startswith("\x1b[H\x1b[2J")
    place.ok("delete", "--yes", file)


def watched(place: Place, until: str) -> str:
    """What ``top --watch`` shows on a terminal until it has shown that; Ctrl-C ends it."""
    ours, theirs = os.openpty()
    told = b""
    with subprocess.Popen([*COMMAND, "top", "-w"], env=dict(place.environment), stdout=theirs) as process:
        os.close(theirs)
        try:
            while until.encode() not in told and select.select([ours], [], [], 120)[0]:
                told += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130
        finally:
            process.kill()
            os.close(ours)
    return told.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(place: Place, number: signal.Signals) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    script = f"trap 'echo heard; exit 9' {number.value}; echo begun >&2; while :; do sleep 0.05; done"
    with place.started("exec", "web", "--", "sh", "-c", script, until="begun") as command:
        command.send_signal(number)
        out, _ = command.communicate(timeout=120)
    assert (command.returncode, out) == (9, "heard\n")
    with place.started("exec", "web", "--", "sh", "-c", "echo begun >&2; exec sleep 1000", until="begun") as command:
        command.send_signal(number)
        assert command.wait(120) == 128 + number
    assert "sleep 1000" not in place.ok("exec", "web", "--", "ps").out
    place.ok("delete", "--yes", file)


def test_a_shell_is_the_declared_users(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web", user={"name": "ada", "uid": 1234}))
    place.ok("apply", file)
    for words, who in ((["local/web"], "1234:/home/ada"), (["web", "--root"], "0:/root")):
        # What is said in the last moment LXD may lose: it is asked to leave once that has come.
        told, code = at_terminal(place, ["shell", *words], "@web:", "echo $(id -u):$PWD", who, "exit 5")
        assert code == 5, told
    told, code = at_terminal(place, ["shell", "web", "-u", "nobody"])
    assert code == 1, told
    assert "Container/web: only a VM has a monitor" in place.run("monitor", "web").err
    place.ok("delete", "--yes", file)
