"""Watch mode over a branch that is served: pushed is applied; whatever goes wrong there, the last good state stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import Origin
from tests.watch.conftest import IMAGE, Place


@pytest.fixture
def origin(tmp_path: Path, place: Place) -> Iterator[Origin]:
    """A repository that is served; ``place`` takes away what its commits make."""
    (tmp_path / "origin").mkdir()
    found = Origin.make(tmp_path / "origin")
    found.serve()
    yield found
    found.end()


def web(memory: str) -> dict[str, str | None]:
    """A commit's files."""
    spec = {"image": "busybox", "memory": memory, "deletionPolicy": "delete"}
    document = {"apiVersion": "reconciler/v1", "kind": "Container", "metadata": {"name": "web"}, "spec": spec}
    return {"lab/image.yaml": IMAGE, "lab/web.yaml": json.dumps(document)}


def test_what_is_pushed_is_made_so_and_taken_back(place: Place, origin: Origin) -> None:
    first = origin.commit(web("64MiB"))
    words = ["--git", origin.url, "--path", "lab", "--interval", "60s", "--allow-protocol", "git"]
    with place.watching(*words, paths=()) as watch:
        watch.until("Ready", "Container/web")
        watch.until("InSync")
        assert place.status()["source"]["applied"] == first

        second = origin.commit(web("96MiB"))
        place.run("reconcile", "--now")
        watch.until("Applied", "Container/web")
        watch.until("InSync")
        assert place.raw("web")["config"]["limits.memory"] == "96MiB"

        origin.commit({"lab/web.yaml": "kind: ["})
        place.run("reconcile", "--now")
        watch.until("NotUsed")
        watch.until("LastGoodKept")
        assert place.status()["source"]["applied"] == second

        place.run("rollback", first)
        watch.until("Applied", "Container/web")
        watch.until("InSync")
        assert place.raw("web")["config"]["limits.memory"] == "64MiB"
        assert place.status()["source"]["rolledBackTo"] == first

        origin.vanish()
        place.run("reconcile", "--now")
        watch.until("NotUsed")
        origin.serve()
        third = origin.commit(web("80MiB"))
        place.run("resume")
        watch.until("UsedAgain")
        watch.until("InSync")
        assert place.raw("web")["config"]["limits.memory"] == "80MiB"
        assert place.status()["source"]["applied"] == third
