"""A file is saved: that alone is read, what hangs on it alone is looked at, and nothing stays behind of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.watch.client import Client
from tests.support.proxy import proxy
from tests.watch.conftest import Place


def test_of_a_saved_file_lxd_is_asked_about_that_resource_alone(place: Place) -> None:
    for name in ("a", "b", "c"):
        place.container(name, power="stopped")
    place.run("apply", "--yes", str(place.folder))
    with (
        proxy(place.folder.parent / "door.socket", Path(place.environment["LXD_SOCKET"])) as door,
        place.watching("--observe-only", LXD_SOCKET=str(door.path)) as watch,
    ):
        watch.until("InSync")
        door.asked.clear()
        b = place.container("b", power="stopped", memory="64MiB")
        watch.until("Read", words="1 differ")
        watch.until("Suspended", b)
        assert set(door.asked) == {"GET /1.0/instances/b", "GET /1.0/images/aliases/busybox"}
        (place.folder / "c.yaml").unlink()
        watch.until("Read", words="1 differ")
        (place.folder / "deep").mkdir()
        (place.folder / "b.yaml").rename(place.folder / "deep" / "b.yaml")
        (place.folder / "notes.txt").write_text("nobody's")
        place.container("d", power="stopped")
        watch.until("Read", words="1 differ")
        watch.until("Suspended", "Container/d")


@pytest.mark.parametrize("passes", [200, pytest.param(10_000, marks=pytest.mark.proof)])
def test_passes_without_end_take_no_memory(place: Place, passes: int) -> None:
    ids = [place.container(name, power="stopped") for name in ("a", "b")]
    place.run("apply", "--yes", str(place.folder))
    with (
        proxy(place.folder.parent / "door.socket", Path(place.environment["LXD_SOCKET"])) as door,
        place.watching(LXD_SOCKET=str(door.path)) as watch,
    ):
        watch.until("InSync")
        client = Client(Path(place.environment["RECONCILER_STATE_DIR"]) / "run" / "watch" / f"{watch.process.pid}.sock")

        def resident(times: int) -> int:
            """After so many passes more."""
            door.asked.clear()
            while sum(one.startswith("GET /1.0/instances/") for one in door.asked) < times:
                for id in ids:
                    client.post("/v1/reconcile", {"resource": id})
            return int(Path(f"/proc/{watch.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        before = resident(passes // 2)
        assert resident(passes // 2) <= before + (2 << 20)
