"""cli/naming, cli/lookup: what a word on the command line means, and what is said when it means nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.cli import delete
from reconciler.cli.lookup import Seen, find
from reconciler.cli.naming import address, among, is_guest_name
from reconciler.cli.session import plan_options
from reconciler.model import QEMU, Desired, Observed, Power, ResourceId, Snapshot, World
from reconciler.preparation import Wanted
from reconciler.problems import UsageError

TERMINA = ResourceId("VirtualMachine", "termina")


def container(name: str, host: str, *needs: ResourceId, environment: str = "home") -> Observed:
    id = ResourceId("Container", name)
    return Observed(id, f"lxd/{host}", {}, Power.RUNNING, owned=True, environment=environment, needs=needs)


def machine(name: str, power: Power = Power.RUNNING) -> Observed:
    id = ResourceId("VirtualMachine", name)
    return Observed(id, QEMU, {}, power, owned=True, environment="home")


def seen(*resources: Observed) -> Seen:
    """A look that found these."""
    snapshots = {
        backend: Snapshot(backend, 0.0, {one.id: one for one in resources if one.backend == backend})
        for backend in {one.backend for one in resources}
    }
    return Seen({}, World(snapshots))


TOWER = seen(
    machine("termina"),
    machine("asleep", Power.STOPPED),
    container("penguin", "termina", TERMINA),
    container("penguin", "local"),
    container("web", "local"),
    container("deep", "far", TERMINA),
)


@pytest.mark.parametrize(
    ("word", "backend"),
    [
        ("termina/penguin", "lxd/termina"),
        ("local/penguin", "lxd/local"),
        ("local/web", "lxd/local"),
        ("web", "lxd/local"),
        ("Container/web", "lxd/local"),
        ("termina", QEMU),
        ("VirtualMachine/termina", QEMU),
        ("far/deep", "lxd/far"),
        ("termina/deep", "lxd/far"),
    ],
)
def test_a_guest_is_found_by_each_of_its_names(word: str, backend: str) -> None:
    assert find(TOWER, word, None).backend == backend


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("penguin", "say local/penguin or termina/penguin, or --environment"),
        ("Container/penguin", "say local/penguin or termina/penguin"),
        ("termina/pengiun", "did you mean termina/penguin?"),
        ("termnia/penguin", "did you mean termina/penguin?"),
        ("container/web", "did you mean Container/web?"),
        ("Contaner/web", "did you mean Container?"),
        ("termina/web", "there is no such resource"),
        ("asleep/penguin", "VirtualMachine/asleep does not run, and what is inside cannot be seen"),
    ],
)
def test_a_name_that_finds_nothing_says_what_would(word: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        find(TOWER, word, None)
    assert said in str(error.value)


@pytest.mark.parametrize("word", ["web", "Container/web", "a/b/c", "./a", "a/", "/a", "a/B", "a/9", "../b", "a/b.yaml"])
def test_only_two_names_with_a_slash_are_an_address(word: str) -> None:
    assert address(word) is None


def test_delete_tells_addresses_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("manifests").mkdir()
    assert delete.is_id("termina/penguin") and delete.is_id("Container/web")
    assert not delete.is_id("manifests/tower") and not delete.is_id("manifests")


def test_delete_takes_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def look(_arguments: argparse.Namespace) -> Iterator[Seen]:
        yield TOWER

    monkeypatch.setattr(delete, "look", look)

    def targets(*words: str) -> delete.Targets:
        asked = argparse.Namespace(paths=list(words), manifests=[], environment=None)
        return delete._targets(asked)[1]

    penguin = ResourceId("Container", "penguin")
    assert targets("termina/penguin") == {penguin: "lxd/termina"}
    assert targets("local/penguin", "Container/web") == {penguin: "lxd/local", ResourceId("Container", "web"): None}
    with pytest.raises(UsageError, match="named twice"):
        targets("termina/penguin", "local/penguin")
    with pytest.raises(UsageError, match="several are called so"):
        targets("Container/penguin")


DECLARED = {
    TERMINA: (),
    ResourceId("Container", "penguin"): ("lab", "termina"),
    ResourceId("Container", "twice"): ("local",),
    ResourceId("VirtualMachine", "twice"): (),
    ResourceId("Network", "net"): (),
}


@pytest.mark.parametrize(
    ("word", "id"),
    [
        ("termina", "VirtualMachine/termina"),
        ("penguin", "Container/penguin"),
        ("lab/penguin", "Container/penguin"),
        ("termina/penguin", "Container/penguin"),
        ("Network/net", "Network/net"),
        ("Container/nobody", "Container/nobody"),
    ],
)
def test_a_word_means_what_is_declared(word: str, id: str) -> None:
    assert str(among(word, DECLARED)) == id


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("twice", "say Container/twice or VirtualMachine/twice"),
        ("termina/pengiun", "did you mean termina/penguin?"),
        ("far/penguin", "did you mean"),
    ],
)
def test_a_word_that_means_nothing_declared_says_what_would(word: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        among(word, DECLARED)
    assert hint in str(raised.value.problems[0].hint)


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("web", True),
        ("c10-3", True),
        ("container", False),
        ("Web", False),
        ("a/b", False),
        ("volumes", False),
        ("", False),
    ],
)
def test_a_bare_word_is_a_guest_unless_it_was_meant_for_a_kind(word: str, answer: bool) -> None:
    assert is_guest_name(word) is answer


@pytest.mark.parametrize("word", ["web", "far/web", "Container/web"])
def test_only_takes_every_name_of_a_guest(word: str) -> None:
    web, other = ResourceId("Container", "web"), ResourceId("Container", "other")
    wanted = Wanted("home", {id: Desired(id, "lxd/far", {}) for id in (web, other)})
    assert plan_options(argparse.Namespace(only=[word]), wanted).only == {web}


@pytest.mark.parametrize(("word", "hint"), [("wen", "did you mean web?"), ("local/web", "did you mean far/web?")])
def test_only_says_what_could_have_been_meant(word: str, hint: str) -> None:
    web = ResourceId("Container", "web")
    with pytest.raises(UsageError) as caught:
        plan_options(argparse.Namespace(only=[word]), Wanted("home", {web: Desired(web, "lxd/far", {})}))
    assert caught.value.problems[0].hint == hint


def test_deleting_by_a_bare_name_says_how_to_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        delete.run(argparse.Namespace(paths=["web"], manifests=[]))
    assert caught.value.problems[0].hint == "a guest is named with its kind: Container/web or VirtualMachine/web"
