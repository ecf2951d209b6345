"""Which files are read, and which are refused: whoever can write a manifest owns what is applied."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import manifest
from reconciler.manifest import MAX_BYTES
from reconciler.manifest.trust import distrust
from reconciler.problems import ManifestError, Problem


def wrong(*paths: Path | str, stdin: bytes | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ManifestError) as caught:
        manifest.load([str(path) for path in paths], stdin)
    return caught.value.problems


def names(*paths: Path | str) -> list[str]:
    return [os.path.basename(one.file) for one in manifest.load([str(path) for path in paths])]


def test_a_folder_is_everything_below_it_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "sub/d.yaml", "sub/deep/e.YAML", "c.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    assert names(tmp_path) == ["a.yml", "b.yaml", "c.yaml", "d.yaml", "e.YAML"]


@pytest.mark.parametrize(
    "name",
    [
        ".a.yaml.swp",
        ".a.yaml",
        "a.yaml~",
        "4913",
        "#a.yaml#",
        ".#a.yaml",
        "a.yaml.bak",
        ".git/a.yaml",
        "a.txt",
        "README",
    ],
)
def test_what_editors_leave_behind_is_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"\xff[")
    (tmp_path / "real.yaml").write_text("a: 1\n")
    assert names(tmp_path) == ["real.yaml"]


def test_environment_yaml_stands_for_its_folder(tmp_path: Path) -> None:
    for name in ("environment.yaml", "other.yaml", "sub/x.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    assert names(tmp_path) == ["environment.yaml"]
    assert names(tmp_path / "sub") == ["x.yaml"]


def test_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n")
    assert names(tmp_path, tmp_path / "a.yaml", tmp_path / "." / "a.yaml") == ["a.yaml"]


def test_standard_input() -> None:
    assert manifest.load(["-"], b"a: 1\n")[0].file == "-"
    assert "nothing came" in wrong("-", stdin=b" \n")[0].summary
    assert "nothing came" in wrong("-")[0].summary
    assert "more than" in wrong("-", stdin=b"#" * (MAX_BYTES + 1))[0].summary


@pytest.mark.parametrize("inside", [[], ["notes.txt"], [".hidden.yaml"], ["sub/readme"]])
def test_a_folder_without_manifests_never_means_nothing_is_wanted(tmp_path: Path, inside: list[str]) -> None:
    for name in inside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (problem,) = wrong(tmp_path)
    assert problem.summary == "there is no manifest in this folder"
    assert "never means" in (problem.hint or "")


def test_what_is_not_there(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path / "gone.yaml")
    assert problem.summary.endswith("gone.yaml: there is no such file or folder")
    assert problem.mark is None  # whoever names it says where it is named
    assert "not a path" in wrong("a\0b")[0].summary
    assert "not a path" in wrong("a\nb")[0].summary


def _link(path: Path) -> None:
    (path.parent / "target").write_text("a: 1\n")
    path.symlink_to("target")


def _linked_folder(path: Path) -> None:
    (path.parent / ".target").mkdir()
    path.symlink_to(".target")


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_link, "a symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "a symbolic link"),
        (lambda path: path.symlink_to(path), "a symbolic link"),
        (lambda path: os.mkfifo(path, 0o600), "a pipe"),
        (_bind, "a socket"),
    ],
    ids=["link", "dangling link", "link to itself", "pipe", "socket"],
)
@pytest.mark.parametrize("through", ["file", "folder"])
def test_only_regular_files(tmp_path: Path, make: Callable[[Path], None], what: str, through: str) -> None:
    path = tmp_path / "a.yaml"
    make(path)
    (problem,) = wrong(path if through == "file" else tmp_path)
    assert what in problem.summary
    assert str(problem.mark) == f"{path}:1:1"


def test_a_linked_folder_is_not_left_out_in_silence(tmp_path: Path) -> None:
    _linked_folder(tmp_path / "sub")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (problem,) = wrong(tmp_path)
    assert problem.summary == "expected a regular file or folder, got a symbolic link"


def test_devices_are_not_even_opened() -> None:
    assert "got a device" in wrong("/dev/zero")[0].summary


@pytest.mark.parametrize("mode", [0o666, 0o662, 0o622, 0o777])
def test_a_file_that_others_can_write(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "a.yaml").chmod(mode)
    for path in (tmp_path, tmp_path / "a.yaml"):
        (problem,) = wrong(path)
        assert problem.summary == f"can be written by others (mode {mode:04o})"
        assert problem.hint == "chmod go-w"


@pytest.mark.parametrize("where", ["folder", "parent", "inner"])
def test_a_folder_that_others_can_write(tmp_path: Path, where: str) -> None:
    inner = tmp_path / "folder" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.yaml").write_text("a: 1\n")
    {"folder": tmp_path / "folder", "parent": tmp_path, "inner": inner}[where].chmod(0o777)
    problems = wrong(tmp_path / "folder")
    assert "can be written by others (mode 0777)" in problems[0].summary
    assert all(problem.hint for problem in problems)
    if where != "inner":
        assert "can be written" in wrong(inner / "a.yaml")[0].summary


def test_a_sticky_folder_is_fine_on_the_way(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "mine").mkdir(parents=True)
    (shared / "mine" / "a.yaml").write_text("a: 1\n")
    shared.chmod(0o1777)
    assert names(shared / "mine") == ["a.yaml"]


def _status(mode: int, uid: int, gid: int) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def test_only_root_and_the_caller_are_trusted() -> None:
    assert distrust(_status(stat.S_IFREG | 0o600, 0, 0)) is None
    assert distrust(_status(stat.S_IFREG | 0o600, os.geteuid(), 0)) is None
    stranger = 12345
    assert "belongs to uid 12345" in str(distrust(_status(stat.S_IFREG | 0o600, stranger, 0)))
    assert "can be written by others" in str(distrust(_status(stat.S_IFREG | 0o664, 0, 0)))
    assert "can be written by others" in str(distrust(_status(stat.S_IFDIR | 0o775, os.geteuid(), 54321)))


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\n#" + b"x" * (MAX_BYTES - 6))
    assert names(path) == ["a.yaml"]
    os.truncate(path, 10 << 30)  # sparse: takes no room
    assert wrong(path)[0].summary == f"{10 << 30} bytes are more than the 1 MiB that a file may have"


def test_problems_of_every_path_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [\n")
    os.mkfifo(tmp_path / "b.yaml", 0o600)
    assert len(wrong(tmp_path, tmp_path / "gone", "-")) == 4


def test_nothing_named() -> None:
    assert wrong()[0].summary == "no manifest was named"


def test_a_name_that_cannot_be_shown(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.yaml")).write_text("a: 1\n")
    (problem,) = wrong(tmp_path)
    assert problem.summary == "the file's name cannot be shown"
    str(problem).encode("utf-8")


def test_a_payload_beside_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_bytes(b"hello")
    assert manifest.read_payload("./site/index.html", str(tmp_path)) == b"hello"
    assert manifest.read_payload("site/../site/index.html", str(tmp_path)) == b"hello"
    assert manifest.read_payload("/etc/hostname", str(tmp_path), ["/etc"])


def _payload(case: str, folder: Path) -> str:
    """Make what the case is about beside the manifest; its path comes back."""
    path = folder / "x"
    if case == "pipe":
        os.mkfifo(path, 0o600)
    elif case == "link out":
        path.symlink_to("/etc/hostname")
    elif case == "folder":
        path.mkdir()
    elif case == "too big":
        path.write_bytes(b"")
        os.truncate(path, manifest.MAX_PAYLOAD + 1)
    elif case == "writable":
        path.write_bytes(b"x")
        path.chmod(0o666)
    return {"absolute": "/etc/hostname", "above": "../../../../../../etc/hostname", "nul": "a\0b"}.get(case, "x")


@pytest.mark.parametrize(
    ("case", "summary"),
    [
        ("missing", "No such file"),
        ("pipe", "expected a regular file"),
        ("folder", "expected a regular file"),
        ("link out", "outside of the manifest's folder"),
        ("absolute", "outside of the manifest's folder"),
        ("above", "outside of the manifest's folder"),
        ("too big", "more than 16 MiB"),
        ("writable", "can be written by others"),
        ("nul", "null byte"),
    ],
)
def test_a_payload_that_is_refused(tmp_path: Path, case: str, summary: str) -> None:
    path = _payload(case, tmp_path)
    with pytest.raises(ManifestError) as caught:
        manifest.read_payload(path, str(tmp_path))
    assert summary in caught.value.problems[0].summary
    assert caught.value.problems[0].hint


def test_remotes_of_the_lxd_client(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(
        "default-remote: local\nremotes:\n  mine:\n    addr: https://lxd.example.org:8443\n    protocol: lxd\n"
        "  images:\n    addr: https://mirror.example.org\n    protocol: simplestreams\n    public: true\n"
        "  local:\n    addr: unix://\n"
    )
    found = manifest.read_remotes(str(path))
    assert found["mine"] == {"server": "https://lxd.example.org:8443", "protocol": "lxd"}
    assert found["images"] == {"server": "https://mirror.example.org", "protocol": "simplestreams"}
    assert "local" not in found
    assert found["ubuntu"]["protocol"] == "simplestreams"


@pytest.mark.parametrize("content", ["", "[", "remotes: []", "remotes: {a: 1, b: {addr: 5}}", "x: !!python/none"])
def test_a_broken_client_configuration_leaves_the_usual_remotes(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yml").write_text(content)
    assert set(manifest.read_remotes(str(tmp_path / "config.yml"))) == set(
        manifest.read_remotes(str(tmp_path / "gone"))
    )


def test_the_clients_configuration_is_understood_only_when_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("remotes: {mine: {addr: 'https://lxd.example.org'}}\n")
    ask = (
        "import sys; from reconciler.manifest import read_remotes; found = read_remotes(sys.argv[1]);"
        "yaml = 'reconciler.manifest.parsing'; print(yaml in sys.modules, 'mine' in found, yaml in sys.modules)"
    )
    command = [sys.executable, "-c", ask, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


def test_remotes_are_equal_when_their_files_said_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    before = manifest.read_remotes(str(path))
    path.write_text("remotes: {mine: {addr: 'https://lxd.example.org'}}\n")
    then = manifest.read_remotes(str(path))
    assert before != then == manifest.read_remotes(str(path))
    assert repr(before) != repr(then) == repr(manifest.read_remotes(str(path)))
