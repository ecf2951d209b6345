"""``reconciler cp`` with a real container."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Place
from tests.e2e.test_commands import IMAGE, container

BIG = os.urandom(3 << 20)


@pytest.fixture
def web(place: Place) -> Iterator[Place]:
    """A place with the container web and its user ada."""
    file = place.write("web.yaml", IMAGE + container("web", user={"name": "ada", "uid": 1234}))
    place.ok("apply", file)
    yield place
    place.ok("delete", "--yes", file)


def test_a_tree_goes_in_and_comes_back(web: Place) -> None:
    tree = web.folder / "tree"
    (tree / "sub folder").mkdir(parents=True)
    (tree / "big").write_bytes(BIG)
    (tree / "big").chmod(0o640)
    (tree / "sub folder" / "ü\n").write_text("odd")
    (tree / "link").symlink_to("sub folder/ü\n")
    web.ok("cp", "tree", "local/web:/home/ada")
    said = web.ok("exec", "web", "--", "stat", "-c", "%a %u %s", "/home/ada/tree/big", "/home/ada/tree/sub folder").out
    assert said.split("\n")[0] == f"640 1234 {len(BIG)}"
    assert said.split("\n")[1].split()[:2] == [f"{(tree / 'sub folder').stat().st_mode & 0o777:o}", "1234"]

    web.ok("cp", "web:/home/ada/tree", "back")
    assert subprocess.run(["diff", "-r", "--no-dereference", tree, web.folder / "back"]).returncode == 0
    assert (web.folder / "back/big").stat().st_mode & 0o7777 == 0o640
    assert (web.folder / "back/link").is_symlink()


def test_what_a_container_holds_does_not_reach_beyond_the_target(web: Place) -> None:
    script = "cd /srv && ln -s /etc/passwd abs && ln -s ../../x up && mkdir sub && echo hi > sub/f && chmod 6755 sub/f"
    web.ok("exec", "web", "--", "sh", "-c", f"mkdir -p /srv && {script}")
    done = web.ok("cp", "web:/srv", ".")
    assert sorted(path.name for path in (web.folder / "srv").rglob("*")) == ["f", "sub"]
    assert (web.folder / "srv/sub/f").stat().st_mode & 0o7777 == 0o755
    assert "abs: left out" in done.err and "up: left out" in done.err
    refused = web.run("cp", "web:/srv/abs", "copy")
    assert refused.code == 1 and "it leads to /etc/passwd" in refused.err
    refused = web.run("cp", "web.yaml", "web:/srv/abs")
    assert refused.code == 1 and "is a link: not overwritten" in refused.err


def test_streams_go_in_and_out(web: Place) -> None:
    web.ok("cp", "-", "web:/home/ada/notes", stdin="one\ntwo\n")
    assert web.ok("cp", "web:/home/ada/notes", "-").out == "one\ntwo\n"
    assert web.ok("exec", "web", "--", "stat", "-c", "%u", "/home/ada/notes").out == "1234\n"
    web.ok("stop", "web")
    assert web.ok("cp", "Container/web:/home/ada/notes", "-").out == "one\ntwo\n"  # LXD needs nobody in it for that


WRONG = [
    (("a", "b"), "exactly one of the two has to be NAME:PATH"),
    (("web:/a", "web:/b"), "exactly one of the two"),
    (("web:a", "b"), "expected an absolute path"),
    (("wep:/a", "b"), "did you mean web?"),
    (("web:/none", "b"), "/none: there is no such file in the guest"),
    (("none", "web:/srv"), "No such file or directory"),
    (("web.yaml", "web:/none/x"), "/none: there is no such folder in the guest"),
    (("web:/etc", "web.yaml"), "web.yaml"),
    (("web:/etc/passwd", "/none/x"), "/none: No such file or directory"),
    (("web:/pipe", "-"), "/pipe: only a file can go to standard output"),
]


def test_what_cannot_be_copied_is_said_by_name(web: Place) -> None:
    web.ok("exec", "web", "--", "mkfifo", "/pipe")
    for words, said in WRONG:
        done = web.run("cp", *words)
        assert (done.code, done.out) == (1, "")
        assert said in done.err
    done = web.ok("cp", "web:/pipe", "copy")
    assert "/pipe: left out: no plain file" in done.err
    assert sorted(path.name for path in web.folder.iterdir()) == ["web.yaml"]
