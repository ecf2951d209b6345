"""record.py: one apply at a time, no lock ever to be removed by hand, and a history that may be lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.model import Change, Effect, Outcome, Plan, ResourceId, Result, Run, Step, Verb
from reconciler.problems import Locked
from reconciler.record import Events, History, is_awaited, locked

HOLD_THE_LOCK = """
import sys
from pathlib import Path
from reconciler.record import locked
with locked(Path(sys.argv[1]), "test", 0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)


def test_the_second_is_told_who_holds_the_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    waited: list[str] = []
    with pytest.raises(Locked) as caught, locked(tmp_path, "test", 0.3, waited.append):
        pass
    finish(holder)
    assert f"process {holder.pid}" in str(caught.value) and "--lock-timeout" in str(caught.value)
    assert len(waited) == 1 and str(holder.pid) in waited[0]


def test_another_environment_is_not_concerned(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with locked(tmp_path, "other", 0):
        assert holder.poll() is None  # it still has its own
        finish(holder)


def test_a_killed_holder_leaves_nothing_in_the_way(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    finish(holder)
    with locked(tmp_path, "test", 5):
        assert (tmp_path / "locks" / "test.lock").stat().st_mode & 0o777 == 0o600


def test_history_keeps_what_happened_but_no_values(tmp_path: Path) -> None:
    change = Change("change", ("cloudInit", "userData"), "old secret", "new secret")
    step = Step(ResourceId("Container", "web"), "lxd/local", Verb.UPDATE, "fields differ", Effect.LIVE, (change,))
    history = History(tmp_path)
    history.add(Run("1", "apply", Plan("test", (step,)), [Outcome(step, Result.APPLIED, 0.5)], True))
    (entry,) = history.runs()
    history.close()
    assert entry.converged and entry.outcomes[0]["fields"] == ["cloudInit.userData"]
    assert b"secret" not in (tmp_path / "history.sqlite").read_bytes()


def a_run(id: str) -> Run:
    step = Step(ResourceId("Container", "web"), "lxd/local", Verb.CREATE, "it does not exist")
    return Run(id, "apply", Plan("test", (step,)), [Outcome(step, Result.APPLIED)], True)


def test_history_that_was_lost_starts_again(tmp_path: Path) -> None:
    History(tmp_path).close()
    (tmp_path / "history.sqlite").unlink()
    history = History(tmp_path)
    assert history.runs() == []
    history.close()


@pytest.mark.parametrize("torn", ["all of it", "a page of it"])
def test_history_that_lost_power_has_broken_begins_anew(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "history.sqlite"
    history = History(tmp_path)
    history.add(a_run("lost"))
    history.close()
    whole = file.read_bytes()
    file.write_bytes(b"x" * 8192 if torn == "all of it" else whole[:4096] + b"x" * (len(whole) - 4096))
    history = History(tmp_path)
    history.add(a_run("kept"))
    assert [entry.id for entry in history.runs()] == ["kept"]
    history.close()
    assert (tmp_path / "history.sqlite.broken").exists() and file.stat().st_mode & 0o777 == 0o600


def test_a_history_without_room_says_so_and_goes_on_later(tmp_path: Path) -> None:
    history = History(tmp_path)
    history._base.execute("PRAGMA max_page_count = 4")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        for number in range(100):
            history.add(a_run(f"{number:05}" * 200))
    history._base.execute("PRAGMA max_page_count = 1000")
    history.add(a_run("later"))
    assert history.runs(1)[0].id == "later"
    history.close()


def test_who_waits_is_seen_to_wait_and_no_longer_once_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_THE_LOCK.replace(", 0)", ", 60)"), str(tmp_path)]
    with locked(tmp_path, "test", 0):
        assert not is_awaited(tmp_path, "test")
        waiting = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while not is_awaited(tmp_path, "test"):
            assert waiting.poll() is None
        assert not is_awaited(tmp_path, "other")
        waiting.kill()
        finish(waiting)
        assert not is_awaited(tmp_path, "test")


def test_events_are_kept_apart_by_environment_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.record._KEPT_EVENTS", 600)
    events = Events(tmp_path)
    for number in range(1501):
        events.add(float(number), "odd" if number % 2 else "even", {"number": number})
    events.close()
    events = Events(tmp_path)
    assert [one["number"] for one in events.newest(2, "even")] == [1498, 1500]
    assert len(events.newest(5000)) == 600 and events.newest(3, "none") == []
    events.close()
    assert (tmp_path / "events.sqlite").stat().st_mode & 0o777 == 0o600
