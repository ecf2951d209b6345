"""What comes to the watch from outside, by force and by signals, and what others read of it: nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.watch.conftest import COMMAND, Place


def born(pid: int) -> tuple[int, str]:
    """A process, and when it was started: the pair never comes again."""
    return pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def machines(place: Place) -> list[str]:
    """The uuids of all QEMUs whose files are in this state folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if b"-uuid" in words:
            found.append(words[words.index(b"-uuid") + 1].decode())
    ours = {json.loads(path.read_text())["uuid"] for path in (place.state / "vms").glob("*/record.json")}
    return sorted(one for one in found if one in ours)


@pytest.mark.proof
@pytest.mark.parametrize("moment", ["Read", "Step", "Progress", "Applied", "Ready"])
@pytest.mark.parametrize("kind", ["Container", "VirtualMachine"])
def test_killed_at_this_very_moment_the_next_one_finishes_and_touches_nothing(
    place: Place, kind: str, moment: str
) -> None:
    place.container("old")
    place.machine("vm")
    place.run("apply", "--yes", str(place.folder))
    before = born(place.init("old")), born(place.qemu("vm"))
    watch = place.begin()
    watch.until("Read")
    new = place.container("new", ready={"command": ["true"]}) if kind == "Container" else place.machine("new")
    watch.until(moment, "" if moment == "Read" else new)
    watch.kill()
    with place.watching() as watch:
        watch.until("InSync")
        touched = {one["resource"] for one in watch.events if one["reason"] in ("Step", "Restarting", "CrashLoop")}
    assert touched <= {new, "Image/busybox", "Image/idle"}
    assert (born(place.init("old")), born(place.qemu("vm"))) == before
    there = {one["name"] for one in place.client.get("instances", recursion="1").metadata}
    assert there == ({"old", "new"} if kind == "Container" else {"old"})
    uuids = machines(place)
    assert len(uuids) == len(set(uuids)) == (1 if kind == "Container" else 2)
    place.run("plan", str(place.folder), "--exit-code")


def test_more_events_than_the_kernel_keeps_lose_nothing(place: Place) -> None:
    with place.watching() as watch:
        watch.until("InSync")
        os.kill(watch.process.pid, signal.SIGSTOP)
        passing = place.folder / ".passing"
        for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())):
            passing.touch()
            passing.unlink()
        web = place.container("web")  # by now, the kernel has no room to tell of it
        os.kill(watch.process.pid, signal.SIGCONT)
        watch.until("Ready", web)


def test_it_looks_at_everything_when_it_gets_a_hangup(place: Place) -> None:
    vm = place.machine("vm")
    place.run("apply", "--yes", str(place.folder))
    with socket.socket(socket.AF_UNIX) as other:  # somebody else hears what QEMU tells: the watch does not
        other.connect(str(place.state / "run" / "vms" / "vm" / "events.sock"))
        assert other.recv(4096)
        with place.watching("--resync", "1h") as watch:
            watch.until("InSync")
            place.ask("vm", "stop")
            watch.process.send_signal(signal.SIGHUP)
            watch.until("Applied", vm)
            watch.until("Ready", vm)
            assert place.ask("vm", "query-status")["status"] == "running"


def test_told_to_end_in_the_middle_of_a_step_it_ends_well_and_nothing_stays_half_done(place: Place) -> None:
    with place.watching() as watch:  # which is told to end there, and must end with 0
        watch.until("InSync")
        slow = [{"command": ["sleep", "3"], "when": "create"}, {"command": ["touch", "/made"], "when": "create"}]
        new = place.container("new", run=slow)
        watch.until("Step", new)
    with place.watching() as watch:
        watch.until("InSync")
    place.run("plan", str(place.folder), "--exit-code")
    assert place.run("exec", "new", "--", "ls", "/made") == "/made\n"


def test_events_are_followed_as_they_happen_until_the_end(place: Place) -> None:
    with place.watching() as watch:
        watch.until("InSync")
        command = [*COMMAND, "events", "-f", "-o", "json"]
        with subprocess.Popen(command, env=place.environment, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            told = map(json.loads, follower.stdout)
            assert next(told)["reason"] == "Read"  # what there was of this watch comes first
            web = place.container("web")
            assert any((one["resource"], one["reason"]) == (web, "Ready") for one in told)
            watch.process.terminate()
            assert all(one["environment"] == "default" for one in told)
            assert follower.wait(120) == 0


@pytest.mark.parametrize(("form", "line"), [("human", r"\d\d:\d\d:\d\d [ !] \S.*"), ("journal", r"<[467]>\S.*")])
def test_its_log_is_lines_whatever_names_are_in_it(place: Place, form: str, line: str) -> None:
    """As a service manager reads them: from a stream socket."""
    (place.folder / "evil\n<0>name.yaml").write_text("kind: [")
    ours, theirs = socket.socketpair()
    command = [*COMMAND, "watch", str(place.folder), "--log-format", form]
    running = subprocess.Popen(command, env=place.environment, stdin=subprocess.DEVNULL, stderr=theirs.fileno())
    theirs.close()
    with ours, ours.makefile(encoding="utf-8") as log:
        lines = [next(log)]
        assert "NotUsed" in lines[0] and "name.yaml" in lines[0]
        (place.folder / "evil\n<0>name.yaml").unlink()
        while "InSync" not in lines[-1]:
            lines.append(next(log))
        running.terminate()
        lines += list(log)
    assert running.wait(120) == 0
    assert [one for one in lines if not re.fullmatch(line, one.rstrip("\n"))] == []
    if form == "journal":
        assert {one[:3] for one in lines} >= {"<4>", "<6>"}


def test_where_much_is_declared_what_drifted_meanwhile_is_mended_all_the_same(place: Place) -> None:
    """LXD is asked before a single manifest is read."""
    for number in range(200):
        (place.folder / f"{number}.txt").touch()
    for number in range(4):
        place.container(f"one{number}", power="stopped", memory="32MiB")
    with place.watching() as watch:
        watch.until("InSync")
    place.set_config("one2", limits_memory="48MiB")
    with place.watching() as watch:
        watch.until("Applied", "Container/one2")
        watch.until("InSync")
        assert {one["resource"] for one in watch.events if one["reason"] == "Step"} == {"Container/one2"}
    assert place.raw("one2")["config"]["limits.memory"] == "32MiB"
