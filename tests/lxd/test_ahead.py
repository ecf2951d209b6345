"""What LXD is asked before anybody can use the answer: used once, and only while it is still so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.backends.lxd import ahead
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.ahead import TARGET, Ahead
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.polling import readable
from tests.support.lxd import Lab

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine."""
    monkeypatch.setattr(ahead, "_PATIENCE", PATIENCE)
    monkeypatch.setattr(ahead, "_FRESH", 2 * PATIENCE)


@pytest.fixture
def asked(lab: Lab) -> Iterator[Ahead]:
    ahead.begin(lab.lxd.socket)
    found = ahead.begun(Address(socket=lab.lxd.socket, origin="somewhere"))
    assert found is not None and ahead.begun(Address(socket=lab.lxd.socket)) is None, "whoever comes first"
    yield found
    found.close()


def until(fact: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_is_what_anybody_would_be_told_and_told_once(lab: Lab) -> None:
    want = lab.container(lab.lxd.name(), power="stopped")
    lab.converge(want)
    plain = list(lab.client.each("instances", recursion="1"))
    assert [one["name"] for one in plain] == [want.id.name]

    def is_used() -> bool:
        """Not while LXD tells of that container's making still, or pings."""
        ahead.begin(lab.lxd.socket)
        early = Client(Address(socket=lab.lxd.socket), ahead.begun(Address(socket=lab.lxd.socket)))
        with closing(early), closing(early.events(Deadline.after(PATIENCE))):
            assert list(early.each("instances", recursion="1")) == plain
            assert early._local is not None
            used = not early._local._idle  # no other connection was needed
            assert list(early.each("instances", recursion="1")) == plain and early._local._idle
        return used

    until(is_used)


def test_not_where_something_has_happened_since(lab: Lab, asked: Ahead) -> None:
    ear = asked.ear()
    assert ear is not None and asked.ear() is None
    lab.converge(lab.container(lab.lxd.name(), power="stopped"))
    until(lambda: readable([ear], 0.0) and ear.receive())
    assert asked.answer(TARGET, PATIENCE) is None
    ear.close()


def test_not_where_something_has_been_told_and_nobody_has_read_it_yet(lab: Lab, asked: Ahead) -> None:
    ear = asked.ear()
    lab.converge(lab.container(lab.lxd.name(), power="stopped"))
    assert ear is not None and readable([ear], PATIENCE)
    assert asked.answer(TARGET, PATIENCE) is None
    ear.close()


def test_not_while_nobody_listens(asked: Ahead) -> None:
    assert asked.answer(TARGET, PATIENCE) is None


def test_not_when_it_is_old(asked: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    ear = asked.ear()
    assert ear is not None
    monkeypatch.setattr(asked, "_until", 0.0)
    assert asked.answer(TARGET, PATIENCE) is None
    ear.close()


def test_other_questions_are_asked(asked: Ahead) -> None:
    assert asked.answer("/1.0/instances", PATIENCE) is None


def test_what_nobody_wants_is_let_go_of(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_FRESH", 0.05)
    one = Ahead(lab.lxd.socket)
    one._end.join(PATIENCE)
    assert one.ear() is None and one.answer(TARGET, PATIENCE) is None


def test_another_lxd_was_not_asked(lab: Lab, tmp_path: Path) -> None:
    here = Address(socket=lab.lxd.socket)
    ahead.begin(lab.lxd.socket)
    for other in (replace(here, project="x"), replace(here, target="x"), Address(url="https://x"), Address(tmp_path)):
        assert ahead.begun(other) is None
    found = ahead.begun(here)
    assert found is not None
    found.close()


def test_where_there_is_none_nothing_is_said(tmp_path: Path) -> None:
    ahead.begin(tmp_path / "none")
    assert ahead.begun(Address(socket=tmp_path / "none")) is None
