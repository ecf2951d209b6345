"""The watch's thread that asks the server: whoever decides never waits for it, and whatever breaks it, it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.gitops import GitSource, Repository
from reconciler.gitops.memory import Memory
from reconciler.watch import branch
from reconciler.watch.branch import BranchSource
from tests.gitops.test_source import lab, project
from tests.support.repository import Origin

PATIENCE = 30.0


class Watched:
    """The source, with what the deciding thread does about it."""

    def __init__(self, origin: Origin, state: Path) -> None:
        self.repository = Repository(origin.url, path="lab", protocols=("git",))
        self.state = state
        self._news = threading.Event()
        self.source = BranchSource(self.repository, state, 60.0, self._news.set)

    def until(self, fact: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not fact():
            assert time.monotonic() < deadline, self.source.problems
            self._news.wait(0.1)
            self._news.clear()
            self.source.refresh()

    def names(self) -> list[str]:
        wanted = self.source.wanted
        return sorted(id.name for id in wanted.desired) if wanted is not None else []

    def on_disk(self) -> str | None:
        return GitSource(self.repository, self.state).state().applied


@pytest.fixture
def watched(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(branch, "_AGAIN", 0.05)
    origin.commit(lab("a"))
    one = Watched(origin, tmp_path / "state")
    one.until(lambda: one.names() == ["a"])
    yield one
    one.source.close()


def test_a_state_that_cannot_be_written_is_told_and_tried_again(origin: Origin, watched: Watched) -> None:
    [file] = watched.state.glob("gitops/*/state.json")
    kept = file.read_bytes()
    file.unlink()
    file.mkdir()  # as hard to replace as on a full disk
    origin.commit({"base/b.yaml": project("b")})
    watched.source.refresh(force=True)
    watched.until(lambda: watched.source.problems)
    assert "cannot be kept" in watched.source.problems[0].summary and watched.names() == ["a"]
    file.rmdir()
    file.write_bytes(kept)
    watched.until(lambda: watched.names() == ["a", "b"] and not watched.source.problems)


def test_whoever_decides_waits_for_no_server(watched: Watched) -> None:
    wanted, commit = watched.source.wanted, watched.source.status()["accepted"]
    assert wanted is not None
    with Memory.of(watched.state, watched.repository).at_work():  # as while a server is asked that does not answer
        deciding = threading.Thread(target=watched.source.proved, args=(wanted,), daemon=True)
        deciding.start()
        deciding.join(PATIENCE)
        assert not deciding.is_alive()
        assert watched.source.status()["applied"] == commit and watched.on_disk() is None
    watched.until(lambda: watched.on_disk() == commit)


def test_what_was_proved_is_noted_before_the_end(watched: Watched) -> None:
    assert watched.source.wanted is not None
    watched.source.proved(watched.source.wanted)
    watched.source.close()
    assert watched.on_disk() == watched.source.status()["accepted"]
