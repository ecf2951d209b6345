"""gitops: what a push comes to, and everything that a server, a history and a signature can do instead."""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.gitops import GitSource, Repository
from reconciler.problems import ManifestError, UsageError
from tests.gitops.conftest import Source
from tests.support.repository import Origin, git, ssh_key

HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n"


def project(name: str, description: str = "x") -> str:
    return HEAD.format("Project", name, f'{{description: "{description}"}}')


def lab(*names: str) -> dict[str, str]:
    environment = HEAD.format("Environment", "lab", "{resources: [../base], values: {WHAT: filled}}")
    return {"lab/environment.yaml": environment, **{f"base/{one}.yaml": project(one, "${WHAT}") for one in names}}


def names(source: GitSource) -> list[str]:
    taken = source.take()
    assert taken.wanted is not None
    return sorted(id.name for id in taken.wanted.desired)


def summary(source: GitSource) -> str:
    problem = source.state().problem
    return problem.summary if problem is not None else ""


def test_what_is_pushed_is_taken(origin: Origin, source: Source) -> None:
    first = origin.commit(lab("a"))
    watched = source()
    assert watched.take().wanted is None
    assert watched.fetch().head == first
    taken = watched.take()
    assert taken.wanted is not None and taken.wanted.environment == "lab"
    [want] = taken.wanted.desired.values()
    assert want.spec["description"] == "filled"
    assert str(want.mark) == "git:@/base/a.yaml:1:1"

    second = origin.commit({"base/b.yaml": project("b")})
    assert watched.state().head == first
    assert watched.fetch().head == second and names(watched) == ["a", "b"]


def test_what_was_decided_outlives_a_restart(origin: Origin, source: Source) -> None:
    first, second = origin.commit(lab("a")), origin.commit({"base/b.yaml": project("b")})
    source().fetch()
    source().note_applied(second)
    source().suspend()
    state = source().state()
    assert (state.applied, state.suspended, state.may_apply) == (second, True, False)

    assert source().rollback(first[:8]).target == first
    assert names(source()) == ["a"]
    assert source().fetch().target == first  # until somebody resumes
    assert source().resume().target == second
    assert source().state().may_apply and not source().observe().may_apply


def test_a_rollback_leads_nowhere_else(origin: Origin, source: Source) -> None:
    origin.commit(lab("a"))
    watched = source()
    watched.fetch()
    for revision in ("0" * 40, "HEAD", "--all", origin.git("hash-object", "-w", "base/a.yaml")):
        with pytest.raises(UsageError):
            watched.rollback(revision)


def test_rewritten_history_is_not_followed_until_somebody_says_so(origin: Origin, source: Source) -> None:
    origin.commit(lab("a"))
    good = origin.commit({"base/b.yaml": project("b")})
    watched = source()
    watched.fetch()
    origin.git("reset", "-q", "--hard", "HEAD~1")
    forced = origin.commit({"base/c.yaml": project("c")}, push=False)
    origin.push("--force")
    state = watched.fetch()
    assert (state.head, state.seen) == (good, forced)
    assert "rewritten" in summary(watched) and names(watched) == ["a", "b"]
    with pytest.raises(UsageError):
        watched.accept(good)
    with pytest.raises(UsageError):
        watched.rollback(forced[:12])
    by_whole_id = watched.rollback(forced)
    assert (by_whole_id.head, by_whole_id.pinned) == (forced, None)
    assert watched.fetch().problem is None and names(watched) == ["a", "c"]


def test_rewritten_history_has_to_be_signed_as_well(
    origin: Origin, source: Source, keys: tuple[Path, Path, Path]
) -> None:
    origin.sign_with(keys[0])
    good = origin.commit(lab("a"))
    watched = source(signers=keys[2])
    watched.fetch()
    origin.git("commit", "-q", "--amend", "--allow-empty", "-m", "other")
    origin.push("--force")
    forced = watched.fetch().seen
    assert forced is not None
    with pytest.raises(UsageError, match="not signed"):
        watched.rollback(forced)
    assert watched.state().head == good


def test_going_back_by_force_is_rewriting_too(origin: Origin, source: Source) -> None:
    origin.commit(lab("a"))
    good = origin.commit({"base/b.yaml": project("b")})
    watched = source()
    watched.fetch()
    origin.git("reset", "-q", "--hard", "HEAD~1")
    origin.push("--force")
    assert watched.fetch().head == good and "rewritten" in summary(watched)
    origin.git("reset", "-q", "--hard", good)
    origin.push()
    assert watched.fetch().problem is None


def test_a_branch_that_goes_and_comes_again(origin: Origin, source: Source) -> None:
    good = origin.commit(lab("a"))
    watched = source()
    watched.fetch()
    origin.git("push", "-q", "origin", "HEAD:other")
    git(origin.folder / "fleet.git", "symbolic-ref", "HEAD", "refs/heads/other")
    origin.git("push", "-q", "origin", ":main")
    state = watched.fetch()
    assert (state.head, state.seen) == (good, None) and "gone" in summary(watched)
    assert names(watched) == ["a"]
    origin.push()
    assert watched.fetch().problem is None


def test_a_ref_that_only_ends_like_the_branch_is_not_it(origin: Origin, source: Source) -> None:
    origin.commit(lab("a"))
    origin.git("push", "-q", "origin", "HEAD:refs/a/refs/heads/main", "HEAD:refs/heads/other")
    git(origin.folder / "fleet.git", "symbolic-ref", "HEAD", "refs/heads/other")
    origin.git("push", "-q", "origin", ":main")
    watched = source()
    assert watched.fetch().seen is None and "gone" in summary(watched)


def test_a_server_that_is_gone_for_a_while(origin: Origin, source: Source) -> None:
    good = origin.commit(lab("a"))
    watched = source()
    reached = watched.fetch().reached
    origin.vanish()
    state = watched.fetch()
    assert (state.head, state.reached) == (good, reached) and "cannot be read" in summary(watched)
    assert names(watched) == ["a"]
    newer = origin.commit({"base/b.yaml": project("b")})
    origin.serve()
    state = watched.fetch()
    assert (state.head, state.problem) == (newer, None)


def test_wrong_manifests_leave_what_was_applied(origin: Origin, source: Source) -> None:
    good = origin.commit(lab("a"))
    watched = source()
    watched.fetch()
    watched.note_applied(good)
    bad = origin.commit({"base/b.yaml": project("b").replace("description", "descripton")})
    assert watched.fetch().head == bad
    taken = watched.take()
    assert taken.commit == good and taken.wanted is not None
    assert str(taken.problems[0].mark) == f"git:{bad[:12]}/base/b.yaml:4:8"
    assert bad[:12] in summary(watched)
    assert bad[:12] in (watched.fetch().problem or taken.problems[0]).summary  # asking again does not forget it
    mended = origin.commit({"base/b.yaml": project("b")})
    watched.fetch()
    assert watched.take().commit == mended and summary(watched) == ""


@pytest.mark.parametrize("broken", ["objects/??/*", "objects/pack/*", "config", "HEAD", "refs/reconciler/*", "*"])
def test_a_broken_mirror_is_made_anew(origin: Origin, source: Source, tmp_path: Path, broken: str) -> None:
    origin.commit(lab("a"))
    watched = source()
    watched.fetch()
    [mirror] = (tmp_path / "state" / "gitops").glob("*/mirror.git")
    for path in [path for path in mirror.glob(broken) if path.is_file()]:
        path.chmod(0o600)
        path.write_bytes(b"nonsense")
    newer = origin.commit({"base/b.yaml": project("b")})
    for again in (watched, source()):
        state = again.fetch()
        assert (state.head, state.problem) == (newer, None) and names(again) == ["a", "b"]


def test_a_broken_mirror_is_better_than_none(origin: Origin, source: Source, tmp_path: Path) -> None:
    """What can still be read of it is, until the server is there again."""
    good = origin.commit(lab("a"))
    source().fetch()
    [mirror] = (tmp_path / "state" / "gitops").glob("*/mirror.git")
    (mirror / "refs/reconciler/seen").write_text("nonsense")
    origin.vanish()
    watched = source()
    assert watched.fetch().head == good and names(watched) == ["a"]
    mirror.rename(mirror.with_suffix(".broken"))  # killed while a new one was made
    assert names(source()) == ["a"]
    origin.serve()
    newer = origin.commit({"base/b.yaml": project("b")})
    assert source().fetch().head == newer
    assert {path.name for path in mirror.parent.glob("mirror.*")} == {"mirror.git", "mirror.lock"}


def test_fetching_at_once_from_several_threads(origin: Origin, source: Source) -> None:
    head = origin.commit(lab("a", "b"))
    watched = [source() for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        states = list(pool.map(lambda number: watched[number % 3].fetch(), range(6)))
    assert [(one.head, one.problem) for one in states] == [(head, None)] * 6


def test_locks_of_a_git_that_was_killed_are_no_obstacle(origin: Origin, source: Source, tmp_path: Path) -> None:
    origin.commit(lab("a"))
    watched = source()
    watched.fetch()
    [folder] = (tmp_path / "state" / "gitops").glob("*")
    (folder / "mirror.git/refs/reconciler/seen.lock").touch()
    (folder / "mirror.git/refs/reconciler/head.lock").touch()
    (folder / "mirror.lock").write_bytes(b"*")
    newer = origin.commit({"base/b.yaml": project("b")})
    assert watched.fetch().head == newer


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ext::sh -c touch% /tmp/x", "not the address"),
        ("--upload-pack=touch /tmp/x", "not the address"),
        ("file:///srv/fleet.git", "file is not allowed"),
        ("/srv/fleet.git", "file is not allowed"),
        ("http://x/fleet.git", "http is not allowed"),
        ("git://x/fleet.git", "git is not allowed"),
        ("fd::17", "not the address"),
    ],
)
def test_only_https_and_ssh_unless_asked_for(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GitSource(Repository(url), tmp_path)


@pytest.mark.parametrize("ref", ["-x", "a..b", "a//b", "x.lock", "a b", "a:b", "a/", "", "@{x"])
def test_only_names_of_branches(tmp_path: Path, ref: str) -> None:
    with pytest.raises(UsageError, match="branch"):
        GitSource(Repository("https://x/y", ref), tmp_path)


def test_a_password_in_the_address_is_never_shown(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{nobody.getsockname()[1]}/fleet.git"
        watched = GitSource(Repository(f"https://me:c4n4ry@{place}"), tmp_path)
        state = watched.fetch()
    assert state.problem is not None and place in str(state.problem)
    kept = [path.read_text() for path in tmp_path.rglob("state.json")]
    assert len(kept) == 1 and "c4n4ry" not in f"{state} {state.problem} {watched.repository} {kept}"


@pytest.mark.parametrize("url", ["https://x/y", "ssh://a@x/y", "a@x:y", "x:y/z"])
def test_the_usual_addresses(tmp_path: Path, url: str) -> None:
    assert GitSource(Repository(url), tmp_path).state().head is None


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Somebody who is listed, somebody who is not, and the list."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    listed, other = ssh_key(folder, "listed"), ssh_key(folder, "other")
    public = listed.with_suffix(".pub").read_text().split()
    (folder / "allowed").write_text(f"a@x {public[0]} {public[1]}\n")
    return listed, other, folder / "allowed"


def test_every_commit_has_to_be_signed(origin: Origin, source: Source, keys: tuple[Path, Path, Path]) -> None:
    listed, other, allowed = keys
    watched = source(signers=allowed)
    origin.sign_with(listed)
    good = origin.commit(lab("a"))
    assert watched.fetch().head == good

    origin.sign_with(None)
    sneaked = origin.commit({"base/b.yaml": project("b")})
    origin.sign_with(listed)
    origin.commit({})  # the tip is signed; what came before it is not
    assert watched.fetch().head == good
    assert f"commit {sneaked[:12]} is not signed" in summary(watched)

    origin.git("reset", "-q", "--hard", good)
    origin.push("--force")
    assert watched.fetch().problem is None
    origin.sign_with(other)
    stranger = origin.commit({"base/b.yaml": project("b")})
    assert watched.fetch().head == good
    assert f"commit {stranger[:12]} bears no signature that counts" in summary(watched)


def test_a_first_commit_that_nobody_signed_is_not_taken(
    origin: Origin, source: Source, keys: tuple[Path, Path, Path]
) -> None:
    origin.commit(lab("a"))
    watched = source(signers=keys[2])
    assert watched.fetch().head is None and "not signed" in summary(watched)
    assert watched.take().wanted is None


def test_a_signature_over_something_else_does_not_count(
    origin: Origin, source: Source, keys: tuple[Path, Path, Path]
) -> None:
    origin.sign_with(keys[0])
    good = origin.commit(lab("a"))
    watched = source(signers=keys[2])
    watched.fetch()
    origin.commit({"base/b.yaml": project("b")}, push=False)
    raw = git(origin.folder / "work", "cat-file", "commit", "HEAD").replace("\n\nm", "\n\nanother message")
    forged = git(origin.folder / "work", "hash-object", "-t", "commit", "-w", "--stdin", data=f"{raw}\n".encode())
    origin.git("push", "-q", "origin", f"{forged}:main")
    assert watched.fetch().head == good and "no signature that counts" in summary(watched)


def test_who_is_listed_no_more_counts_no_more(origin: Origin, source: Source, keys: tuple[Path, Path, Path]) -> None:
    listed, other, allowed = keys
    origin.sign_with(listed)
    good = origin.commit(lab("a"))
    assert source(signers=allowed).fetch().head == good
    public = other.with_suffix(".pub").read_text().split()
    allowed.write_text(f"a@x {public[0]} {public[1]}\n")
    origin.commit({"base/b.yaml": project("b")})
    watched = source(signers=allowed)
    assert watched.fetch().head == good and "no signature that counts" in summary(watched)


def test_a_list_that_others_can_write_to_is_none(origin: Origin, source: Source, keys: tuple[Path, Path, Path]) -> None:
    origin.sign_with(keys[0])
    origin.commit(lab("a"))
    keys[2].chmod(0o666)
    watched = source(signers=keys[2])
    assert watched.fetch().head is None and "written by others" in summary(watched)


def test_signatures_that_are_asked_for_need_a_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whose signatures"):
        GitSource(Repository("https://x/y", require_signed=True), tmp_path)


def test_openpgp_signatures_by_the_keyring_alone(origin: Origin, source: Source, tmp_path: Path) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    around = {"GNUPGHOME": str(home)}
    make = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "a@x", "ed25519", "sign", "never"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), **around}
    subprocess.run(make, check=True, capture_output=True, env=environment)
    keyring = tmp_path / "keyring.gpg"
    keyring.write_bytes(subprocess.run(["gpg", "--export"], check=True, capture_output=True, env=environment).stdout)
    try:
        for name, text in lab("a").items():
            (origin.folder / "work" / name).parent.mkdir(exist_ok=True)
            (origin.folder / "work" / name).write_text(text)
        origin.git("add", ".")
        origin.git("-c", "user.signingkey=a@x", "commit", "-q", "-S", "-m", "m", **around)
        origin.push()
        good = source(keyring=keyring).fetch()
        assert good.head is not None and good.problem is None
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)
    origin.commit({"base/b.yaml": project("b")})
    watched = source(keyring=keyring)
    watched.fetch()
    assert "not signed" in summary(watched)


def test_an_ssh_signature_is_no_openpgp_signature(
    origin: Origin, source: Source, keys: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """A list of one sort is no leave for the other: nobody's own keyring or list is asked."""
    origin.sign_with(keys[0])
    origin.commit(lab("a"))
    empty = tmp_path / "allowed"
    empty.write_text("# nobody\n")
    watched = source(signers=empty)
    assert watched.fetch().head is None and "no signature that counts" in summary(watched)


def test_manifests_cannot_reach_out_of_the_repository(origin: Origin, source: Source, tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text(project("stolen"))
    listed = HEAD.format("Environment", "lab", f"{{resources: [../../../../..{secret}, {secret}, ../../x]}}")
    origin.commit({"lab/environment.yaml": listed})
    watched = source()
    head = watched.fetch().head
    assert head is not None
    with pytest.raises(ManifestError) as caught:
        watched.load(head)
    places = [one.mark for one in caught.value.problems if one.mark is not None]
    assert [(one.file, one.line) for one in places] == [(f"git:{head[:12]}/lab/environment.yaml", 4)] * 3
    assert all("leads out of the repository" in one.summary for one in caught.value.problems)


@pytest.mark.parametrize("kind", ["link", "folder link", "submodule"])
def test_links_and_submodules_are_refused(origin: Origin, source: Source, kind: str) -> None:
    files = lab("a")
    if kind == "submodule":
        origin.commit(files, push=False)
        origin.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},base/sub")
    else:
        link = origin.folder / "work" / "base" / ("b.yaml" if kind == "link" else "more")
        link.parent.mkdir()
        link.symlink_to("/etc" if kind == "folder link" else "/etc/passwd")
        origin.git("add", ".")
    origin.commit({} if kind == "submodule" else files)
    watched = source()
    watched.fetch()
    taken = watched.take()
    assert taken.wanted is None
    assert "expected a regular file, got" in taken.problems[0].summary


def test_hooks_and_configuration_of_others_do_nothing(origin: Origin, source: Source, tmp_path: Path) -> None:
    """Neither what a person has configured nor a hook that came into the mirror is ever run."""
    origin.commit(lab("a"))
    watched = source()
    watched.fetch()
    [mirror] = (tmp_path / "state" / "gitops").glob("*/mirror.git")
    witness = tmp_path / "witness"
    (mirror / "hooks").mkdir(exist_ok=True)
    for name in ("reference-transaction", "post-checkout", "pre-auto-gc", "post-merge"):
        (mirror / "hooks" / name).write_text(f"#!/bin/sh\ntouch {witness}\n")
        (mirror / "hooks" / name).chmod(0o700)
    newer = origin.commit({"base/b.yaml": project("b")})
    assert watched.fetch().head == newer
    assert not witness.exists()
