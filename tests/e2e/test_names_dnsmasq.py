"""Names answered by a real dnsmasq, which is never started again and never signalled."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.names import dnsmasq
from reconciler.names.lines import Names
from reconciler.names.places import Usual, named
from tests.support.dnsmasq import Dnsmasq

PENGUIN = ("penguin.termina.linux.test", "penguin.linux.test")


def at(address: str) -> Names:
    return Names([f"{address}\t{' '.join(PENGUIN)}", "10.0.0.9\tweb.linux.test"], [])


@pytest.fixture
def server(tmp_path: Path) -> Dnsmasq:
    """Not started yet."""
    return Dnsmasq(tmp_path)


def test_what_is_written_is_answered_and_what_is_taken_out_is_not(server: Dnsmasq) -> None:
    place = named(server.folder)
    assert place.keep(at("10.0.0.1"), whole=True) is True
    assert [one.summary for one in place.problems()] == ["no dnsmasq answers from there yet"]
    with server.running():
        assert place.problems() == []
        assert [server.ask(name) for name in PENGUIN] == [["10.0.0.1"], ["10.0.0.1"]]
        assert place.keep(at("10.0.0.1"), whole=True) is False
        assert place.keep(at("10.0.0.2"), whole=True) is True
        for name in PENGUIN:
            server.until(name, ["10.0.0.2"])
        place.keep(Names(["10.0.0.9\tweb.linux.test"], []), whole=False)
        assert place.keep(Names(["10.0.0.9\tweb.linux.test"], []), whole=True) is True
        server.until(PENGUIN[0], [])
        assert server.ask("web.linux.test") == ["10.0.0.9"]
        assert place.entry is not None and place.entry.remove() is True
        server.until("web.linux.test", [])
    assert list(server.folder.iterdir()) == []


def test_names_that_are_not_ours_to_give_are_asked_of_nobody(tmp_path: Path) -> None:
    """Whoever is behind it would answer: another server would be told what guests are called here."""
    server = Dnsmasq(tmp_path, "address=/#/192.0.2.7")
    named(server.folder).keep(at("10.0.0.1"), whole=True)
    with server.running():
        assert server.ask("elsewhere.example") == ["192.0.2.7"]
        assert server.ask("nobody.linux.test") == []


def test_a_dnsmasq_that_this_host_asks_is_found(tmp_path: Path) -> None:
    (tmp_path / "etc/NetworkManager").mkdir(parents=True)
    server = Dnsmasq(tmp_path, f"hostsdir={tmp_path}/etc")  # it watches something, and not ours
    (tmp_path / "etc/NetworkManager/dnsmasq.d").symlink_to(server.folder)
    (tmp_path / "etc/hosts").write_text("")
    (tmp_path / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    usual = Usual(tmp_path)
    assert usual.choose(attended=True) == usual.hosts
    with server.running():
        assert (dnsmasq.version() or (0, 0)) >= dnsmasq.FIRST
        assert usual.choose() == usual.hosts
        assert "--to dnsmasq" in usual.check().hint
        best = usual.choose(attended=True)
        assert best.entry == usual.entries[0]
        usual.keep(best, at("10.0.0.1"), whole=True)
        assert usual.choose() == best
        assert (usual.check().ok, "is not read by any" in usual.check().found) == (False, True)
    with server.running():
        assert (usual.check().ok, "is answered by dnsmasq" in usual.check().found) == (True, True)
        assert server.ask(PENGUIN[0]) == ["10.0.0.1"]
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.1\nnameserver 127.0.0.1\n")
    assert usual.remove() is True
    with server.running():
        assert usual.choose(attended=True) == usual.hosts
