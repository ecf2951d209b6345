"""``get``, ``describe`` and ``history`` beside a watch: what it knows is shown, and not believed over what is there."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from reconciler.record import locked
from tests.watch.conftest import PATIENCE, Place


def got(place: Place, id: str) -> dict[str, Any]:
    """What ``get`` says of one resource; its conditions by type."""
    [one] = json.loads(place.out("get", "-o", "json", id))
    return {**one, "conditions": {told["type"]: told for told in one["conditions"]}}


def until(place: Place, id: str, synced: bool) -> dict[str, Any]:
    """The same, once the watch says that: what LXD tells late is looked at first, and that takes a moment."""
    deadline = time.monotonic() + PATIENCE
    while (one := got(place, id))["conditions"].get("Synced", {}).get("status") is not synced:
        assert time.monotonic() < deadline, one
    return one


def test_get_says_what_the_watch_knows_and_since_when(place: Place) -> None:
    web = place.container("web", memory="64MiB")
    with place.watching() as watch:
        watch.until("InSync")
        one = until(place, web, True)
        assert one["ready"] and one["lookedAt"]
        assert one["conditions"]["Ready"]["since"] <= one["lookedAt"]
        table = place.run("get")
        assert "SYNCED" in table and f"default is watched by process {watch.process.pid}" in table
        assert "Synced" in place.run("describe", web)

        place.run("suspend", "--reason", "moving house")
        place.set_config("web", limits_memory="32MiB")
        watch.until("Suspended", web, "moving house")
        one = until(place, web, False)
        assert one["ready"]
        assert one["conditions"]["Held"]["message"] == "moving house" and one["conditions"]["Held"]["since"]
        wide = place.run("get", "-o", "wide")
        assert "Suspended: moving house" in wide and "; suspended: moving house" in wide

        place.delete("web")
        assert "declared, and not there" in place.run("get", web, code=1)
        assert f"{web} is declared, and not there: Suspended: moving house" in place.run("get")
        place.run("resume")
        watch.until("Ready", web)
        [run, *_] = json.loads(place.out("history", "-o", "json"))
        assert run["trigger"] == "watch" and run["converged"] and run["outcomes"][0]["verb"] == "create"


def test_what_the_watch_has_not_seen_yet_is_not_believed(place: Place) -> None:
    web = place.container("web", memory="64MiB")
    with place.watching() as watch:
        watch.until("InSync")
        with locked(place.state, "default", 120.0):  # as an apply does: the watch waits, and sees nothing meanwhile
            place.set_config("web", limits_memory="32MiB")
            one = got(place, web)
            assert one["conditions"]["Synced"]["status"] is None and one["conditions"]["Synced"]["reason"] == "Changed"
            assert "Held" not in one["conditions"]
        watch.until("Applied", web)
        watch.until("Ready", web)
        until(place, web, True)

        os.kill(watch.process.pid, signal.SIGSTOP)
        told = place.run("get")
        assert "does not answer" in told and web in told and "SYNCED" not in told
        os.kill(watch.process.pid, signal.SIGCONT)
        until(place, web, True)
    assert "Synced" not in got(place, web)["conditions"]


def test_hosts_that_are_watched_are_looked_at_as_well(place: Place) -> None:
    head = {"apiVersion": "reconciler/v1"}
    for document in (
        {
            "kind": "Project",
            "metadata": {"name": "far"},
            "spec": {"config": {"features.profiles": "false"}, "deletionPolicy": "delete"},
        },
        {
            "kind": "Host",
            "metadata": {"name": "far"},
            "spec": {"lxd": {"socket": place.environment["LXD_SOCKET"], "project": "far"}},
        },
    ):
        place.save(f"{document['kind']}.yaml", json.dumps({**head, **document}))
    web = place.container("distant", host="far", power="stopped")
    with place.watching() as watch:
        watch.until("InSync")
        assert until(place, web, True)["host"] == "far"
        assert "far" in place.run("describe", "far/distant")
    assert web not in place.out("get", "-o", "name")
    place.run("delete", "--yes", "--confirm-delete", str(place.folder))
