"""gitops over what people really use: ssh with keys of their own, https with a certificate of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.gitops import GitSource, Repository
from tests.gitops.test_source import lab, names, project, summary
from tests.support.repository import Origin, ssh_key


@pytest.fixture(params=["ssh", "https"])
def origin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    """A repository that is served so; what it is believed by lies beside it."""
    tmp_path.chmod(0o700)
    (tmp_path / "origin").mkdir()
    found = Origin.make(tmp_path / "origin", request.param)
    found.serve()
    if request.param == "https":
        monkeypatch.setenv("SSL_CERT_FILE", str(found.certificate))
    yield found
    found.end()


def source(origin: Origin, state: Path, **fields: object) -> GitSource:
    """As ``watch --git`` makes it: no protocol has to be allowed for these."""
    about: dict[str, object] = {"path": "lab"}
    if origin.over == "ssh":
        about |= {"key": origin.key, "known_hosts": origin.known_hosts}
    return GitSource(Repository(origin.url, **{**about, **fields}), state)  # type: ignore[arg-type]


def test_what_is_pushed_is_taken_and_a_server_may_be_gone_for_a_while(origin: Origin, tmp_path: Path) -> None:
    good = origin.commit(lab("a"))
    watched = source(origin, tmp_path / "state")
    assert watched.fetch().head == good, watched.state().problem
    assert names(watched) == ["a"]
    origin.vanish()
    assert watched.fetch().head == good and "cannot be read" in summary(watched)
    newer = origin.commit({"base/b.yaml": project("b")})
    origin.serve()
    state = watched.fetch()
    assert (state.head, state.problem) == (newer, None) and names(watched) == ["a", "b"]
    origin.git("reset", "-q", "--hard", "HEAD~1")
    origin.push("--force")
    assert watched.fetch().head == newer and "rewritten" in summary(watched)


def test_a_server_that_is_another_one_is_not_believed(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = origin.commit(lab("a"))
    watched = source(origin, tmp_path / "state")
    assert watched.fetch().head == good
    origin.vanish()
    for path in (*origin.folder.glob("host*"), *origin.folder.glob("certificate.*")):
        path.rename(path.with_name(f"old-{path.name}"))
    monkeypatch.setenv("SSL_CERT_FILE", str(origin.folder / "old-certificate.pem"))
    origin.commit({"base/b.yaml": project("b")})
    origin.serve()  # with a key of its own, and under the same address
    assert watched.fetch().head == good and "cannot be read" in summary(watched)


def test_who_may_not_read_is_told_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "origin").mkdir()
    origin = Origin.make(tmp_path / "origin", "ssh")
    origin.serve()
    try:
        origin.commit(lab("a"))
        stranger = source(origin, tmp_path / "state", key=ssh_key(tmp_path, "stranger"))
        assert stranger.fetch().head is None
        problem = stranger.state().problem
        assert problem is not None and "Permission denied" in str(problem.detail)
    finally:
        origin.end()
