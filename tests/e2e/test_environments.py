"""Environments against the real thing: a secret is in the guest, and nowhere else that anybody sees or that we keep."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.e2e.conftest import Done, Place
from tests.e2e.test_commands import IMAGE, container, environment, lxd, verbs

CANARY, OTHER = "c4n4ry-p4ssw0rd-1", "c4n4ry-p4ssw0rd-2"
FILES = [{"path": "/etc/app.conf", "content": "user=app\npassword=${PASSWORD}\n"}]
GENERATORS = {"PASSWORD": {"environment": "APP_PASSWORD"}}


def holds(folder: Path, words: bytes) -> list[Path]:
    """Every file below (LXD's own aside: the guest's disk is there) in which these words stand."""
    files = [path for path in folder.rglob("*") if path.is_file() and "lxd" not in path.relative_to(folder).parts[:1]]
    return [path for path in files if words in path.read_bytes()]


def inside(place: Place, *words: str) -> Done:
    return place.run("exec", "Container/secretive", "--", *words)


def test_a_secret_reaches_the_guest_and_nothing_else(place: Place) -> None:
    place.write("all.yaml", IMAGE + container("secretive", files=FILES))
    file = place.write("environment.yaml", environment("vault", generators=GENERATORS))
    plan = str(place.folder / "plan.json")
    said: list[Done] = []

    refused = place.run("plan", file)
    assert "the variable APP_PASSWORD is not set" in refused.err and "<secret PASSWORD>" in refused.err
    said.append(place.ok("render", file))
    assert "password=<secret PASSWORD>" in said[-1].out
    said.append(place.ok("plan", "--out", plan, "-v", file, APP_PASSWORD=CANARY))
    said.append(place.ok("plan", "-o", "json", file, APP_PASSWORD=CANARY))
    stale = place.run("apply", plan, APP_PASSWORD=OTHER)
    assert stale.code == 1 and "<secret PASSWORD> has changed since" in stale.err
    assert place.names() == set()
    said.append(place.ok("apply", "-v", plan, APP_PASSWORD=CANARY))
    assert inside(place, "cat", "/etc/app.conf").out == f"user=app\npassword={CANARY}\n"
    assert inside(place, "stat", "-c", "%a", "/etc/app.conf").out == "600\n"

    again = place.ok("plan", "-o", "json", file, APP_PASSWORD=CANARY)
    assert verbs(again)["Container/secretive"] == "noop"
    said += [again, place.ok("diff", file, APP_PASSWORD=OTHER)]
    said += [place.ok(*words) for words in (("get", "-o", "json"), ("describe", "Container/secretive"), ("history",))]
    said.append(place.ok("apply", "-o", "json", file, APP_PASSWORD=OTHER))
    assert verbs(said[-1])["Container/secretive"] == "update"
    assert inside(place, "grep", "password", "/etc/app.conf").out == f"password={OTHER}\n"

    assert not [done for done in said if CANARY in done.out + done.err or OTHER in done.out + done.err]
    with contextlib.closing(lxd(place)) as client:
        marks = str(client.get("instances", "secretive"))
    assert "password" not in marks.lower() and CANARY not in marks and OTHER not in marks
    assert holds(place.state, CANARY.encode()) + holds(place.state, OTHER.encode()) == []
    assert holds(place.folder, CANARY.encode()) == []

    inside(place, "sh", "-c", "echo more >> /etc/app.conf")
    assert "Container/secretive" in place.ok("get", "--manifests", file).out  # nobody who only looks needs the secret
    place.write("all.yaml", IMAGE + container("secretive"))
    place.ok("apply", file)
    assert inside(place, "ls", "/etc/app.conf").code != 0  # a secret does not stay, whatever became of it
    place.write("all.yaml", IMAGE + container("secretive", files=FILES))
    place.ok("delete", "--yes", file)
