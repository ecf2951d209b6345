"""names/places: where names are kept on a host, chosen by what the host is set up for. Folders stand for the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.names.block import has_block
from reconciler.names.lines import Names
from reconciler.names.places import Usual, named
from reconciler.problems import Refused, UsageError

ONE = Names(["10.0.0.1\tweb.linux.test"], [])
NONE = Names([], [])


@pytest.fixture
def usual(tmp_path: Path) -> Usual:
    """A host that asks a server elsewhere, and has a folder of dnsmasq's."""
    (tmp_path / "etc/dnsmasq.d").mkdir(parents=True)
    (tmp_path / "etc/hosts").write_text("127.0.0.1\tlocalhost\n")
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    for folder in (tmp_path, tmp_path / "etc", tmp_path / "etc/dnsmasq.d"):
        folder.chmod(0o755)
    return Usual(tmp_path)


def test_where_nobody_serves_it_is_the_file(usual: Usual) -> None:
    assert usual.choose(attended=True) == usual.choose() == usual.hosts
    assert usual.keep(usual.hosts, ONE, whole=True) is True
    assert usual.keep(usual.hosts, ONE, whole=True) is False
    assert usual.hosts.problems() == []


def test_what_was_set_up_stays_so_until_somebody_says_otherwise(usual: Usual) -> None:
    usual.keep(usual.hosts, ONE, whole=True)
    usual.keep(usual.choose("dnsmasq"), ONE, whole=True)
    assert not has_block(usual.hosts.path)
    entry = usual.choose().entry
    assert entry is not None and entry.file.read_text().splitlines()[1:-1] == ONE.lines
    assert f"hostsdir={entry.watched}" in entry.line.read_text().splitlines()
    assert [one.stat().st_mode & 0o777 for one in (entry.watched, entry.file, entry.line)] == [0o755, 0o644, 0o644]
    usual.keep(usual.choose("hosts"), ONE, whole=True)
    assert list(entry.folder.iterdir()) == []
    assert usual.choose() == usual.hosts and has_block(usual.hosts.path)


def test_names_of_what_keeps_silent_move_along(usual: Usual) -> None:
    usual.keep(usual.hosts, Names([*ONE.lines, "10.0.0.2\tfar.linux.test"], []), whole=True)
    now = Names(["10.0.0.3\tweb.linux.test"], [])
    usual.keep(usual.choose("dnsmasq"), now, whole=False)
    both = [*now.lines, "10.0.0.2\tfar.linux.test"]
    assert usual.entries[0].file.read_text().splitlines()[1:-1] == both
    assert usual.keep(usual.choose(), now, whole=False) is False
    usual.keep(usual.choose("hosts"), now, whole=False)
    assert usual.hosts.path.read_text().splitlines()[2:-1] == both


def test_all_of_it_is_taken_away_and_nothing_foreign(usual: Usual) -> None:
    usual.keep(usual.choose("dnsmasq"), ONE, whole=True)
    entry = usual.entries[0]
    (entry.watched / "mine").write_text("10.9.9.9 mine\n")
    (entry.folder / "mine.conf").write_text("")
    assert usual.remove() is True
    assert sorted(one.name for one in entry.folder.rglob("*")) == ["mine", "mine.conf", "reconciler.names"]
    assert usual.hosts.path.read_text() == "127.0.0.1\tlocalhost\n"
    (entry.watched / "mine").unlink()
    assert usual.remove() is True
    assert usual.remove() is False


def test_a_host_without_dnsmasq_cannot_be_told_to_use_it(usual: Usual) -> None:
    (usual.root / "etc/dnsmasq.d").rmdir()
    with pytest.raises(UsageError, match="no dnsmasq is set up"):
        usual.choose("dnsmasq")


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_may_change_is_not_written_to(usual: Usual, mode: int) -> None:
    folder = usual.root / "etc/dnsmasq.d"
    folder.chmod(mode)
    with pytest.raises(Refused, match="may be changed by others"):
        usual.keep(named(folder), ONE, whole=True)
    assert list(folder.iterdir()) == []


def test_a_folder_that_dnsmasq_would_read_as_something_else_is_refused(usual: Usual) -> None:
    folder = usual.root / "with space"
    folder.mkdir()
    with pytest.raises(Refused, match="could not be told"):
        named(folder).keep(ONE, whole=True)


@pytest.mark.parametrize(
    ("server", "resolved", "ok", "words"),
    [
        ("192.0.2.1", "", True, "a block of"),
        ("127.0.0.53", "", True, "systemd-resolved answers from it"),
        ("127.0.0.53", "ReadEtcHosts=no", False, "systemd-resolved does not read it"),
        ("127.0.0.53", "#ReadEtcHosts=no\nReadEtcHosts = yes", True, "systemd-resolved answers from it"),
    ],
)
def test_doctor_says_who_answers(usual: Usual, server: str, resolved: str, ok: bool, words: str) -> None:
    (usual.root / "etc/resolv.conf").write_text(f"# made by hand\nnameserver {server}\n")
    (usual.root / "run/systemd/resolved.conf.d").mkdir(parents=True)
    (usual.root / "run/systemd/resolved.conf.d/x.conf").write_text(f"[Resolve]\n{resolved}\n")
    assert usual.check().ok is None
    usual.keep(usual.hosts, ONE, whole=True)
    assert (usual.check().ok, words in usual.check().found) == (ok, True)
    usual.keep(usual.hosts, NONE, whole=True)
    assert usual.check().ok is None
