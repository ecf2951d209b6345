"""watch: when files count as whole, what they look like from outside, and when a guest may be started again."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.watch.restarts import Restarts
from reconciler.watch.settle import PATIENCE, QUIET, WRITER, Settling
from reconciler.watch.tree import Looks, folders_to_watch, look_of, looks


def test_it_is_read_once_it_has_been_quiet() -> None:
    one = Settling()
    assert one.due() is None and not one.take(5.0)
    one.changed(10.0)
    one.changed(10.1)
    assert one.due() == pytest.approx(10.1 + QUIET) and not one.take(10.15)
    assert one.take(10.1 + QUIET) and one.due() is None


def test_unbroken_coming_and_going_is_not_waited_for_for_ever() -> None:
    one = Settling()
    for tenth in range(100):
        one.changed(tenth / 10)
    assert one.due() == pytest.approx(PATIENCE)


def test_a_file_that_somebody_writes_into_is_not_read_until_it_is_closed() -> None:
    one = Settling()
    one.written("/m/a.yaml", 0.0)
    one.changed(3.0)
    assert not one.take(4.0)
    one.closed("/m/a.yaml", 5.0)
    assert one.due() == pytest.approx(min(5.0 + QUIET, PATIENCE)) and one.take(5.0 + QUIET)


def test_a_writer_that_never_closes_is_not_waited_for_for_ever() -> None:
    one = Settling()
    one.written("/m/a.yaml", 0.0)
    assert one.due() == WRITER and one.take(WRITER)
    one.changed(20.0)
    assert one.due() == pytest.approx(20.0 + QUIET)


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("cwx")), min_size=1, max_size=30))
def test_whatever_happens_it_is_read_in_the_end_and_not_before_it_was_quiet(events: list[tuple[float, str]]) -> None:
    one, now = Settling(), 0.0
    for step, what in events:
        now += step
        one.take(now)
        if what == "c":
            one.changed(now)
        elif what == "w":
            one.written("f", now)
        else:
            one.closed("f", now)
    due = one.due()
    assert due is not None and due <= now + max(WRITER, QUIET)
    assert not one.take(min(due, now) - 0.001) or due <= now
    assert one.due() is None or one.take(max(due, now))


def test_every_way_of_saving_changes_what_files_look_like(tmp_path: Path) -> None:
    file, seen = tmp_path / "a.yaml", list[Looks]()
    file.write_text("one")
    seen.append(looks([str(tmp_path)]))
    assert look_of(str(file)) == seen[0][str(file)]
    other = tmp_path / ".a.yaml.swp"
    other.write_text("two")
    assert looks([str(tmp_path)]) in seen  # an editor's own files are nobody's manifests
    other.replace(file)
    seen.append(looks([str(tmp_path)]))
    assert look_of(str(file)) == seen[1][str(file)] != seen[0][str(file)]
    file.unlink()
    seen.append(looks([str(tmp_path)]))
    assert look_of(str(file)) is None
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "b.yaml").write_text("three")
    seen.append(looks([str(tmp_path)]))
    (tmp_path / "deep").rename(tmp_path / "moved")
    seen.append(looks([str(tmp_path)]))
    assert all(one != other for one, other in itertools.combinations(seen, 2))
    assert look_of(str(tmp_path / "moved")) is None, "a folder"
    assert looks([str(tmp_path / "gone")]) == {}


def test_a_link_that_is_pointed_elsewhere_is_seen_and_its_folder_watched(tmp_path: Path) -> None:
    """As mounted config maps do it: a link is exchanged, and no file changes."""
    for version in ("v1", "v2"):
        (tmp_path / "mount" / version).mkdir(parents=True)
        (tmp_path / "mount" / version / "a.yaml").write_text("the same")
    data = tmp_path / "mount" / "..data"
    data.symlink_to("v1")
    before = looks([str(data)])
    assert folders_to_watch([str(data)]) == {
        str(tmp_path / "mount" / "v1"): True,
        str(tmp_path / "mount"): False,
    }
    new = tmp_path / "mount" / "..new"
    new.symlink_to("v2")
    os.replace(new, data)
    assert looks([str(data)]) != before
    assert str(tmp_path / "mount" / "v2") in folders_to_watch([str(data)])


def test_what_is_not_there_yet_is_waited_for_where_it_would_appear(tmp_path: Path) -> None:
    assert folders_to_watch([str(tmp_path / "not" / "yet" / "a.yaml")]) == {str(tmp_path): False}


def test_the_first_restart_waits_for_nothing_and_each_further_one_longer() -> None:
    restarts: Restarts[str] = Restarts()
    now, pauses = 0.0, []
    for _ in range(12):
        pauses.append(restarts.pause("vm", now))
        now += pauses[-1]
        restarts.started("vm", now)
    assert pauses[:4] == [0.0, 1.0, 2.0, 4.0]
    assert max(pauses) <= 300.0 and restarts.in_loop("vm", now)
    assert restarts.pause("vm", now + 600.0) == 0.0 and not restarts.in_loop("vm", now + 600.0)
    restarts.forget("vm")
    assert restarts.pause("vm", now) == 0.0 and restarts.count("vm", now) == 0
