"""gitops, what one commit's files come to; and a git that hangs, or dies with us at any moment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import preparation
from reconciler.gitops import GitSource, Repository
from reconciler.problems import ManifestError
from tests.gitops.conftest import Source
from tests.support.repository import Origin

HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n"
IMAGE = HEAD.format("Image", "busybox", "{type: container, source: {build: {recipe: busybox}}}")


def guest(file: str) -> str:
    return IMAGE + "---\n" + HEAD.format("Container", "web", f"{{image: busybox, files: [{{path: /a, {file}}}]}}")


def wrong(source: GitSource) -> list[str]:
    head = source.fetch().head
    assert head is not None
    with pytest.raises(ManifestError) as caught:
        source.load(head)
    return [str(problem).splitlines()[0].replace(f"git:{head[:12]}/", "") for problem in caught.value.problems]


def test_what_goes_into_guests_comes_from_the_repository(origin: Origin, source: Source) -> None:
    origin.commit({"lab/web.yaml": guest("source: ../texts/a"), "texts/a": "from git\n"})
    watched = source()
    head = watched.fetch().head
    assert head is not None
    [want] = [one for id, one in watched.load(head).desired.items() if id.kind == "Container"]
    assert list(want.payload.values()) == [b"from git\n"]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("source: ../../texts/a", "source: ../../texts/a: leads out of the repository"),
        ("source: ../../../../../../etc/hostname", "leads out of the repository"),
        ("source: /etc/hostname", "source: /etc/hostname: leads out of the repository"),
        ("source: ../texts", "no such file"),
        ("source: ../texts/b", "no such file"),
        ("source: ../texts/link", "expected a regular file, got a symbolic link"),
        ("source: ../texts/link/hostname", "no such file"),
    ],
)
def test_and_from_nowhere_else(origin: Origin, source: Source, file: str, words: str) -> None:
    (origin.folder / "work" / "texts").mkdir()
    (origin.folder / "work" / "texts" / "link").symlink_to("/etc")
    origin.git("add", ".")
    origin.commit({"lab/web.yaml": guest(file), "texts/a": "x"})
    [problem] = wrong(source())
    assert problem.startswith("lab/web.yaml:") and words in problem


def test_relative_paths_lead_to_nothing_on_this_machine(origin: Origin, source: Source) -> None:
    share = HEAD.format("Share", "site", "{source: ./site, mounts: [{target: Container/web, path: /srv}]}")
    origin.commit({"lab/web.yaml": f"{guest('content: x')}---\n{share}"})
    assert any("there is no such file on this machine" in problem for problem in wrong(source()))


def test_variables_need_leave_when_somebody_else_wrote_the_manifest(origin: Origin, source: Source) -> None:
    generators = "{resources: [web.yaml], generators: {HOME_OF: {environment: HOME}}}"
    files = {"lab/environment.yaml": HEAD.format("Environment", "lab", generators)}
    origin.commit({**files, "lab/web.yaml": guest('content: "${HOME_OF}"')})
    [problem] = wrong(source())
    assert "<secret HOME_OF>: the variable HOME: not allowed" in problem and problem.startswith(
        "lab/environment.yaml:4:"
    )


def test_a_folder_is_read_as_on_a_disk(origin: Origin, source: Source) -> None:
    names = ("b.yaml", "a.yml", "sub/c.YAML", ".hidden/d.yaml", ".e.yaml", "f.txt", "own/g.yaml")
    files = {f"lab/{name}": HEAD.format("Project", f"p{number}", "{}") for number, name in enumerate(names)}
    inner = {"lab/own/environment.yaml": HEAD.format("Environment", "own", "{resources: [g.yaml]}")}
    head = origin.commit({**files, **inner})
    watched = source()
    watched.fetch()
    assert sorted(id.name for id in watched.load(head).desired) == ["p0", "p1", "p2", "p6"]


def test_the_example_comes_to_the_same_from_git(origin: Origin, source: Source) -> None:
    example = Path(__file__).resolve().parents[2] / "manifests" / "gitops"
    files = {str(path.relative_to(example)): path.read_text() for path in example.rglob("*.yaml")}
    head = origin.commit(files)
    for name in ("laptop", "prod"):
        watched = source(path=f"environments/{name}")
        watched.fetch()
        here = preparation.render([str(example / "environments" / name)])
        assert [one.data for one in here.documents] == [one.data for one in watched.render(head).documents]
    assert sorted(map(str, source(path="environments/laptop").load(head).desired)) == ["Container/web", "Image/busybox"]


@pytest.mark.parametrize("path", ["nowhere", "..", "../..", "/etc", "lab/../.."])
def test_a_path_that_is_not_there(origin: Origin, source: Source, path: str) -> None:
    origin.commit({"lab/a.yaml": HEAD.format("Project", "a", "{}")})
    [problem] = wrong(source(path=path))
    assert "no such file or folder" in problem or "leads out of the repository" in problem


def test_a_server_that_never_answers_is_left_after_a_while(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/fleet.git"
        watched = GitSource(Repository(url, protocols=("git",), timeout=0.5), tmp_path / "state")
        problem = watched.fetch().problem
    assert problem is not None and problem.detail == "took longer than 0.5 s"


DIE = """
import os, signal, sys
from pathlib import Path
from reconciler.gitops import GitSource, Repository
from reconciler.gitops import git
begun, last = 0, int(sys.argv[3])
class Popen(git.subprocess.Popen):
    def communicate(self, *words, **how):
        global begun
        begun += 1
        if begun == last:  # git has just begun, and goes on without us
            os.kill(os.getpid(), signal.SIGKILL)
        return super().communicate(*words, **how)
git.subprocess.Popen = Popen
print(GitSource(Repository(sys.argv[1], path="lab", protocols=("git",)), Path(sys.argv[2])).fetch().head)
"""


@pytest.mark.proof
def test_killed_beside_any_git_the_next_one_finishes(origin: Origin, source: Source, tmp_path: Path) -> None:
    origin.commit({"lab/a.yaml": HEAD.format("Project", "a", "{}")})
    source().fetch()
    for moment in range(1, 40):
        head = origin.commit({"lab/a.yaml": HEAD.format("Project", f"a{moment}", "{}")})
        words = [sys.executable, "-c", DIE, origin.url, str(tmp_path / "state"), str(moment)]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ}, check=False)
        assert source().fetch().head == head, done.stderr
        if done.returncode != -signal.SIGKILL:
            assert done.stdout.strip() == head and moment > 5
            return
    raise AssertionError("it never came to an end")
