"""cli/copying against a guest that lies: nothing outside of the target is ever written, and no link is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from reconciler.cli.copying import pull, push
from reconciler.cli.cp import _parsed
from reconciler.ports import FILE, FOLDER, LINK, OTHER, Entry
from reconciler.problems import Refused


class Liar:
    """A guest that says what it was told to say: path → contents, names of a folder, (LINK, target), or OTHER."""

    def __init__(self, tree: dict[str, bytes | list[str] | tuple[str, str] | str]) -> None:
        self.tree = tree
        self.modes: dict[str, int] = {}

    def entry(self, path: str) -> Entry | None:
        found = self.tree.get(path)
        types: dict[type, str] = {bytes: FILE, list: FOLDER, tuple: LINK, str: OTHER}
        return None if found is None else Entry(types[type(found)], self.modes.get(path, 0o4755), 0, 0)

    def names(self, path: str) -> list[str]:
        found = self.tree[path]
        assert isinstance(found, list)
        return found

    def target(self, path: str) -> str:
        return self.tree[path][1]  # type: ignore[return-value]

    def stream(self, path: str, sink: Callable[[bytes], None]) -> None:
        found = self.tree[path]
        assert isinstance(found, bytes)
        sink(found)

    def write(self, path: str, data: BinaryIO, mode: int, uid: int, gid: int) -> None:
        self.tree[path], self.modes[path] = data.read(), mode

    def folder(self, path: str, mode: int, uid: int, gid: int) -> None:
        self.tree[path], self.modes[path] = [], mode

    def link(self, path: str, target: str) -> None:
        self.tree[path] = (LINK, target)

    def remove(self, path: str) -> bool:
        return self.tree.pop(path, None) is not None


def listing(folder: Path) -> dict[str, str]:
    """Everything below it: a file's words, a link's target, or "/" for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        words = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
        found[str(path.relative_to(folder))] = words
    return found


@pytest.mark.parametrize("name", ["..", ".", "", "../../evil", "/evil", "a/b", "a\0b"])
def test_a_name_that_is_none_ends_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises(Refused, match="nothing more is copied"):
        pull(Liar({"/d": [name], f"/d/{name}": b"x"}), "/d", tmp_path / "to", print)
    assert listing(tmp_path) == {"to": "/", "to/d": "/"}


def test_a_tree_arrives_as_it_is_without_what_leads_out_of_it(tmp_path: Path) -> None:
    tree = {
        "/d": ["a", "sub", "in", "abs", "own", "up", "pipe", "round", "gone"],
        "/d/a": b"words",
        "/d/sub": ["b", "back", "out", "detour"],
        "/d/sub/b": b"deep",
        "/d/sub/back": (LINK, "../a"),
        "/d/sub/out": (LINK, "../../x"),
        "/d/sub/detour": (LINK, "b/../../../x"),
        "/d/in": (LINK, "./sub/b"),
        "/d/abs": (LINK, "/etc/passwd"),
        "/d/own": (LINK, "/d/sub/b"),
        "/d/up": (LINK, "../d/a"),
        "/d/pipe": OTHER,
        "/d/round": (LINK, "."),
    }
    told: list[str] = []
    pull(Liar(tree), "/d", tmp_path / "new", told.append)  # type: ignore[arg-type]
    assert listing(tmp_path / "new") == {
        "a": "words",
        "in": "-> sub/b",
        "own": "-> sub/b",
        "round": "-> .",
        "sub": "/",
        "sub/b": "deep",
        "sub/back": "-> ../a",
    }
    left = ["/d/abs", "/d/pipe", "/d/sub/detour", "/d/sub/out", "/d/up"]
    assert sorted(words.partition(":")[0] for words in told) == left
    assert stat.S_IMODE((tmp_path / "new/a").stat().st_mode) == 0o755  # who runs it is not its owner here


def test_what_lies_in_the_way_here_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("mine")
    to = tmp_path / "to"
    (to / "d").mkdir(parents=True)
    (to / "d/f").symlink_to(outside / "f")
    pull(Liar({"/d": ["f"], "/d/f": b"theirs"}), "/d", to, print)
    assert (to / "d/f").read_text() == "theirs" and not (to / "d/f").is_symlink()
    (to / "d/s").symlink_to(outside)
    with pytest.raises(OSError, match=r"directory|links"):
        pull(Liar({"/d": ["s"], "/d/s": ["f"], "/d/s/f": b"theirs"}), "/d", to, print)
    assert listing(outside) == {"f": "mine"}


def test_a_link_that_was_named_is_not_followed(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="it leads to /etc/shadow"):
        pull(Liar({"/l": (LINK, "/etc/shadow")}), "/l", tmp_path, print)


def test_folders_without_end_come_to_one(tmp_path: Path) -> None:
    class Endless(Liar):
        def entry(self, path: str) -> Entry | None:
            return Entry(FOLDER, 0o755, 0, 0)

        def names(self, path: str) -> list[str]:
            return ["d"]

    with pytest.raises(Refused, match="deep"):
        pull(Endless({}), "/d", tmp_path / "to", print)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    class Broken(Liar):
        def stream(self, path: str, sink: Callable[[bytes], None]) -> None:
            sink(b"half")
            raise Refused([])

    (tmp_path / "f").write_text("before")
    with pytest.raises(Refused):
        pull(Broken({"/f": b"x"}), "/f", tmp_path / "f", print)
    assert listing(tmp_path) == {"f": "before"}


def test_a_tree_is_put_there_without_following_links(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_text("words")
    (tree / "a").chmod(0o640)
    (tree / "sub/in").symlink_to("../a")
    (tree / "out").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe")
    told: list[str] = []
    guest = Liar({"/": ["srv"], "/srv": []})
    push(guest, tree, "/srv", told.append)
    assert guest.tree["/srv/tree/a"] == b"words" and guest.modes["/srv/tree/a"] == 0o640
    assert guest.tree["/srv/tree/sub/in"] == (LINK, "../a")
    assert sorted(words.partition(":")[0] for words in told) == ["out", "pipe"]
    guest.tree["/srv/tree/a"] = (LINK, "/etc/shadow")
    with pytest.raises(Refused, match="is a link: not overwritten"):
        push(guest, tree, "/srv", told.append)
    with pytest.raises(Refused, match="no such folder"):
        push(guest, tree, "/none/x", told.append)


def test_which_words_are_in_a_guest() -> None:
    assert _parsed("termina/penguin:/a b:c") == ("termina/penguin", "/a b:c")
    assert _parsed("Container/web:/x") == ("Container/web", "/x")
    assert [_parsed(word) for word in ("./a:b", "/a:b", "-", "file", "../x:/y", "a.b:/c")] == [None] * 6
