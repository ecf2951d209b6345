"""The daemon itself: killed and started again, beside other commands, told to wait, and asked how things are."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.watch.door import MOST_CLIENTS
from tests.support.examples import SEED
from tests.watch.conftest import Place


def asked(path: Path, target: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.connect(str(path))
    one.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    return one


def answer(path: Path, target: str) -> str:
    """Empty when it has no room for us just now."""
    with contextlib.suppress(ConnectionError), asked(path, target) as one:
        return b"".join(iter(lambda: one.recv(65536), b"")).decode()
    return ""


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.proof)])
def test_killed_at_any_moment_and_started_again_it_goes_on_and_touches_nothing(place: Place, kills: int) -> None:
    old = place.container("old")
    vm = place.machine("vm")
    with place.watching() as watch:
        watch.until("InSync")
    init, qemu = place.init("old"), place.qemu("vm")
    chance = random.Random(SEED)
    for number in range(kills):
        watch = place.begin()
        watch.until("Read")
        name = f"new{number}"
        place.container(name, files=[{"path": "/etc/made", "content": "made\n"}])
        if number % 2 == 0:
            watch.until("Step", f"Container/{name}")
        time.sleep(chance.uniform(0.0, 1.0))  # some moment of making it, or before, or after
        watch.kill()
    with place.watching() as watch:
        watch.until("InSync")
        steps = {one["resource"] for one in watch.events if one["reason"] in ("Step", "Restarting")}
    assert not steps & {old, vm}
    assert (place.init("old"), place.qemu("vm")) == (init, qemu)
    made = {one["name"] for one in place.client.get("instances", recursion="1").metadata}
    assert made == {"old", *(f"new{number}" for number in range(kills))}
    place.run("plan", str(place.folder), "--exit-code")


def test_a_person_who_applies_meanwhile_gets_their_turn(place: Place) -> None:
    web = place.container("web")
    with place.watching() as watch:
        watch.until("InSync")
        place.run("apply", "--yes", str(place.folder))
        place.container("slow", ready={"command": ["test", "-e", "/tmp/go"], "timeout": "200s"})
        watch.until("Progress", "Container/slow")
        os.kill(place.init("web"), signal.SIGKILL)
        watch.until("Ready", web)  # one that takes long does not keep the others waiting
        place.run("exec", "Container/slow", "--", "touch", "/tmp/go")
        place.run("apply", "--yes", str(place.folder))
        watch.until("Ready", "Container/slow")


def test_what_would_interrupt_waits_until_it_is_allowed(place: Place) -> None:
    web = place.container("web", memory="64MiB")
    place.environment_yaml()
    with place.watching() as watch:
        watch.until("InSync")
        init = place.init("web")
        place.container("web", memory="96MiB", config={"limits.kernel.nofile": "500"})
        watch.until("Waiting", web, "limits.kernel.nofile")
        watch.until("Applied", web)
        assert place.raw("web")["config"]["limits.memory"] == "96MiB" and place.init("web") == init
        watch.until("InSync")
        conditions = {"Ready": True, "Synced": True, "RestartPending": True, "Held": False}
        place.until_status(lambda told: conditions in [of(one) for one in told["resources"] if one["id"] == web])
        place.environment_yaml(approve={"restart": True})
        watch.until("Applied", web, "restart")
        watch.until("Ready", web)
        assert place.init("web") != init


def of(resource: dict[str, Any]) -> dict[str, bool | None]:
    """Its conditions, as the watch tells of it."""
    return {one["type"]: one["status"] for one in resource["conditions"]}


def test_what_is_no_longer_declared_goes_only_when_that_is_approved(place: Place) -> None:
    place.container("web")
    extra = place.container("extra")
    place.environment_yaml(prune=True)
    with place.watching() as watch:
        watch.until("InSync")
        (place.folder / "extra.yaml").unlink()
        place.environment_yaml(prune=True)
        watch.until("NotApproved", extra)
        assert place.raw("extra")["status"] == "Running"
        place.environment_yaml(prune=True, approve={"delete": True})
        watch.until("Applied", extra, "delete")
        watch.until("InSync")
    assert place.client.find("instances", "extra") is None


def test_a_landslide_waits_for_a_person_though_deleting_is_approved(place: Place) -> None:
    names = [f"c{number}" for number in range(5)]
    for name in names:
        place.container(name, power="stopped")
    place.environment_yaml(prune=True, approve={"delete": True})
    with place.watching() as watch:
        watch.until("InSync")
        for name in names[1:]:
            (place.folder / f"{name}.yaml").unlink()
        place.environment_yaml(prune=True, approve={"delete": True})
        watch.until("DeletionGuard")
        place.run("reconcile", "--now")
        assert all(place.client.find("instances", name) is not None for name in names)
        place.container("c4", power="stopped")  # three may go without a word
        place.environment_yaml(prune=True, approve={"delete": True})
        deadline = Deadline.after(120)
        while (left := [name for name in names if place.client.find("instances", name)]) != ["c0", "c4"]:
            assert not deadline.passed, (left, str(watch))
            time.sleep(0.1)


def test_drift_is_only_reported_where_that_is_asked_for(place: Place) -> None:
    web = place.container("web", memory="64MiB", driftPolicy="report")
    with place.watching() as watch:
        watch.until("InSync")
        place.set_config("web", limits_memory="32MiB")
        watch.until("DriftReported", web, "memory")
        assert place.raw("web")["config"]["limits.memory"] == "32MiB"
        place.container("web", memory="96MiB", driftPolicy="report")  # what the manifest says anew is no drift
        watch.until("Applied", web)
        assert place.raw("web")["config"]["limits.memory"] == "96MiB"


def test_it_says_how_things_are_and_does_what_it_is_told(place: Place) -> None:
    web = place.container("web", memory="64MiB")
    place.run("status", code=1)
    with place.watching("--metrics", "127.0.0.1:0") as watch:
        watch.until("InSync")
        for name in (web, "web", "local/web"):
            place.run("wait", name, "--for", "Ready", "--timeout", "120s")
        assert "did you mean web?" in place.run("wait", "wbe", code=1)
        assert "status says why" in place.run("wait", web, "--for", "Held", "--timeout", "0.1s", code=1)
        assert "of it is known: Held, Ready" in place.run("wait", web, "--for", "Redy", "--timeout", "0.1s", code=1)
        place.until_status(lambda told: bool(told["state"] == "on" and told["inSync"]))
        place.run("suspend", "--reason", "moving house")
        watch.until("Suspended")
        place.set_config("web", limits_memory="32MiB")
        watch.until("Suspended", web, "moving house")
        assert place.raw("web")["config"]["limits.memory"] == "32MiB"
        assert "moving house" in place.run("status", code=1)
        told = [json.loads(one)["reason"] for one in place.run("events", "-o", "json").splitlines()]
        assert "Read" in told and told[-1] == "Suspended"
    with place.watching() as watch:  # who starts it again does not undo what somebody decided
        watch.until("Suspended", web)
        place.run("resume")
        watch.until("Applied", web)
        watch.until("InSync")
        assert place.raw("web")["config"]["limits.memory"] == "64MiB"
        place.run("reconcile", "web")
        place.run("rollback", "HEAD~1", code=1)
    history = json.loads(place.run("history", "-o", "json"))
    assert history[0]["trigger"] == "watch" and history[0]["converged"]


def test_its_face_is_for_its_own_user_alone_and_metrics_stand_there(place: Place) -> None:
    web = place.container("web", power="stopped")
    with place.watching() as watch:
        watch.until("InSync")
        path = place.state / "run" / "watch" / f"{watch.process.pid}.sock"
        assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
        for _ in range(MOST_CLIENTS):  # who waits, and then does not, takes nobody's place
            with contextlib.suppress(ConnectionError):
                asked(path, f"/v1/wait?resource={web}&for=Held&timeout=nan").close()
        while not (text := answer(path, "/metrics")):
            assert watch.process.poll() is None
        for name in ("reconcile_total", "reconcile_errors_total", "reconcile_time_seconds_count", "workqueue_depth"):
            assert f"\n{name}" in text
    assert not path.exists()


def test_a_service_manager_is_told(place: Place, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(120)
        with place.watching(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000") as watch:
            told = {manager.recv(100) for _ in range(3)}
            assert told == {b"READY=1", b"WATCHDOG=1"}
            watch.until("InSync")
            watch.process.send_signal(signal.SIGHUP)
            watch.process.terminate()
            while b"STOPPING=1" not in told:
                told.add(manager.recv(100))


def test_only_looking_changes_nothing(place: Place) -> None:
    web = place.container("web")
    with place.watching("--observe-only") as watch:
        watch.until("Suspended", web)
        assert place.client.find("instances", "web") is None
        said = place.run("watch", str(place.folder), code=1)
        assert "watched already" in said and f"process {watch.process.pid}" in said
        assert len(list((place.state / "run" / "watch").glob("*.sock"))) == 1
