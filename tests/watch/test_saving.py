"""A file is saved: that alone is read, what hangs on it alone is looked at, and nothing stays behind of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.watch.client import Client
from reconciler.watch.files import Changed, Files
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
        # With the connection that events come over, everything is looked at once more.
        place.until_status(lambda told: told["inSync"] and any("/events" in one for one in door.asked))
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
        # Gone, moved to a new folder, new: nothing of it is a reason to look at all others.
        assert not {"GET /1.0/instances", "GET /1.0/instances/a"} & {*door.asked}


@pytest.mark.parametrize("passes", [200, pytest.param(10_000, marks=pytest.mark.proof)])
def test_passes_without_end_take_no_memory(place: Place, passes: int) -> None:
    ids = [place.container(name, power="stopped") for name in ("a", "b")]
    place.run("apply", "--yes", str(place.folder))
    with (
        proxy(place.folder.parent / "door.socket", Path(place.environment["LXD_SOCKET"])) as door,
        place.watching(LXD_SOCKET=str(door.path), MALLOC_ARENA_MAX="1") as watch,  # not one more for a thread more
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


class Saved:
    """What is said of files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._news = threading.Event()
        self.files = Files(self._news.set)

    def next(self) -> Changed:
        """What has changed, once that is said."""
        deadline = time.monotonic() + 60
        while (changed := self.files.changed()) is None:
            now = time.monotonic()
            assert now < deadline, "nothing was said"
            self._news.wait(max(0.0, min(deadline, self.files.due()) - now))
            self._news.clear()
        return changed

    def all_of(self, *names: str) -> bool:
        """These and no others are said to have changed: at once, or where the machine is slow one after the other."""
        expected = frozenset(str(self.folder / name) for name in names)
        said: frozenset[str] = frozenset()
        while said < expected:
            said |= self.next().paths or {"anything"}
        return said == expected

    def until_heard(self, files: int) -> None:
        """Of so many files something was told."""
        deadline = time.monotonic() + 60
        while len(self.files._named or ()) < files:
            assert time.monotonic() < deadline, "not everything was told"
            time.sleep(0.01)

    def about(self, *names: str) -> Changed:
        return Changed(frozenset(str(self.folder / name) for name in names))


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Saved]:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "given").symlink_to("real")
    for name in ("a.yaml", "deep/b.yaml", ".hidden"):
        (tmp_path / "real" / name).write_text("one")
    found = Saved(tmp_path / "given")
    found.files.watch([str(found.folder), str(found.folder / ".hidden")])
    yield found
    found.files.close()


def test_what_is_said_of_files_names_them_where_that_is_all(saved: Saved) -> None:
    folder = saved.folder
    (folder / ".new").write_text("two")
    (folder / ".new").replace(folder / "a.yaml")
    assert saved.next() == saved.about("a.yaml")
    (folder / "deep" / "b.yaml").write_text("three")
    (folder / "c.yaml").write_text("new")
    assert saved.all_of("deep/b.yaml", "c.yaml")
    assert not saved.files.moved_on()
    (folder / "c.yaml").rename(folder / "d.yaml")
    assert saved.all_of("c.yaml", "d.yaml")
    (folder / "d.yaml").unlink()
    assert saved.next() == saved.about("d.yaml")
    (folder / ".hidden").write_text("it matters all the same")
    assert saved.next() == Changed(None)


def test_what_is_said_of_folders_may_be_about_anything(saved: Saved) -> None:
    (saved.folder / "deep").rename(saved.folder / "moved")
    assert saved.next() == Changed(None)
    for number in range(100):
        (saved.folder / f"{number}.yaml").write_text("many")
    saved.until_heard(100)
    assert saved.next() == Changed(None), "so many that all are looked at"
    other = saved.folder.parent / "other"
    other.mkdir()
    (saved.folder.parent / "next").symlink_to("other")
    (saved.folder.parent / "next").replace(saved.folder)
    assert saved.next() == Changed(None)


def test_what_changes_while_it_is_read_is_said_once_more(saved: Saved) -> None:
    (saved.folder / "a.yaml").write_text("two")
    assert saved.next() == saved.about("a.yaml")
    (saved.folder / "a.yaml").write_text("three, before it was taken")
    assert saved.files.moved_on()
    assert saved.next() == saved.about("a.yaml")
    assert not saved.files.moved_on()
