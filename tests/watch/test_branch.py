"""Watch mode over a branch that is served: pushed is applied; whatever goes wrong there, the last good state stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.repository import Origin, git, ssh_key
from tests.watch.conftest import IMAGE, Place, Watch

PROOF = pytest.mark.proof


@pytest.fixture(params=["git"])
def origin(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Iterator[Origin]:
    """A repository that is served; ``place`` takes away what its commits make."""
    (tmp_path / "origin").mkdir()
    found = Origin.make(tmp_path / "origin", request.param)
    found.serve()
    yield found
    found.end()


@contextmanager
def watching(place: Place, origin: Origin, *words: str) -> Iterator[Watch]:
    """The watch over its branch, asked to look by ``reconcile --now`` alone."""
    words = ("--git", origin.url, "--path", "lab", "--interval", "60s", "--allow-protocol", "git", *words)
    if origin.over == "ssh":
        words += ("--key", str(origin.key), "--known-hosts", str(origin.known_hosts))
    believed = {"SSL_CERT_FILE": str(origin.certificate)} if origin.over == "https" else {}
    with place.watching(*words, paths=(), **believed) as watch:
        yield watch


def web(memory: str) -> dict[str, str | None]:
    """A commit's files."""
    spec = {"image": "busybox", "memory": memory, "deletionPolicy": "delete"}
    document = {"apiVersion": "reconciler/v1", "kind": "Container", "metadata": {"name": "web"}, "spec": spec}
    return {"lab/image.yaml": IMAGE, "lab/web.yaml": json.dumps(document)}


OVER = ["git", pytest.param("ssh", marks=PROOF), pytest.param("https", marks=PROOF)]


@pytest.mark.parametrize("origin", OVER, indirect=True)
def test_what_is_pushed_is_made_so_and_taken_back(place: Place, origin: Origin) -> None:
    first = origin.commit(web("64MiB"))
    with watching(place, origin) as watch:
        watch.until("Ready", "Container/web")
        watch.until("InSync")
        assert place.status()["source"]["applied"] == first

        second = origin.commit(web("96MiB"))
        place.run("reconcile", "--now")
        watch.until("Applied", "Container/web")
        watch.until("InSync")
        assert place.raw("web")["config"]["limits.memory"] == "96MiB"

        origin.commit({"lab/web.yaml": "kind: ["})
        place.run("reconcile", "--now")
        watch.until("NotUsed")
        watch.until("LastGoodKept")
        assert place.status()["source"]["applied"] == second

        place.run("rollback", first)
        watch.until("Applied", "Container/web")
        watch.until("InSync")
        assert place.raw("web")["config"]["limits.memory"] == "64MiB"
        assert place.status()["source"]["rolledBackTo"] == first

        origin.vanish()
        place.run("reconcile", "--now")
        watch.until("NotUsed")
        origin.serve()
        third = origin.commit(web("80MiB"))
        place.run("resume")
        watch.until("UsedAgain")
        watch.until("InSync")
        assert place.raw("web")["config"]["limits.memory"] == "80MiB"
        assert place.status()["source"]["applied"] == third


def unsigned(origin: Origin) -> Callable[[], None]:
    origin.signing, kept = [], origin.signing
    origin.commit(web("32MiB"))
    origin.signing = kept
    return lambda: back(origin)


def signed_by_another(origin: Origin) -> Callable[[], None]:
    kept = origin.signing
    origin.sign_with(ssh_key(origin.folder, "other"))
    origin.commit(web("32MiB"))
    origin.signing = kept
    return lambda: back(origin)


def rewritten(origin: Origin) -> Callable[[], None]:
    origin.git(*origin.signing, "commit", "-q", "-S", "--amend", "--allow-empty", "-m", "other")
    origin.push("--force")
    return lambda: back(origin, "HEAD@{1}")


def gone(origin: Origin) -> Callable[[], None]:
    origin.git("push", "-q", "origin", "HEAD:other")
    git(origin.folder / "fleet.git", "symbolic-ref", "HEAD", "refs/heads/other")
    origin.git("push", "-q", "origin", ":main")
    return origin.push


def wrong(origin: Origin) -> Callable[[], None]:
    origin.commit({"lab/web.yaml": web("32MiB")["lab/web.yaml"].replace("memory", "memroy")})  # type: ignore[union-attr]
    return lambda: print(origin.commit(web("64MiB")))


def unreachable(origin: Origin) -> Callable[[], None]:
    origin.vanish()
    return origin.serve


def back(origin: Origin, revision: str = "HEAD~1") -> None:
    """Somebody puts it right."""
    origin.git("reset", "-q", "--hard", revision)
    origin.push("--force")


ROWS = {
    unsigned: "is not signed",
    signed_by_another: "bears no signature that counts",
    rewritten: "the history was rewritten",
    gone: "the branch is gone",
    wrong: "memroy",
    unreachable: "cannot be read",
}


@pytest.mark.proof
def test_whatever_goes_wrong_the_last_good_state_stays_and_it_recovers_by_itself(place: Place, origin: Origin) -> None:
    key, signers = ssh_key(origin.folder, "listed"), origin.folder / "allowed"
    kind, public, *_ = key.with_suffix(".pub").read_text().split()
    signers.write_text(f"a@x {kind} {public}\n")
    origin.sign_with(key)
    origin.commit(web("48MiB"))
    origin.commit(web("64MiB"))
    with watching(place, origin, "--signers", str(signers)) as watch:
        watch.until("InSync")
        init = place.init("web")
        for happens, words in ROWS.items():
            mend = happens(origin)
            place.run("reconcile", "--now")
            watch.until("NotUsed", words=words)
            watch.until("LastGoodKept")
            assert words in place.run("status", code=1)
            place.set_config("web", limits_memory="32MiB")  # what was accepted is in force still
            watch.until("Applied", "Container/web")
            watch.until("Ready", "Container/web")
            assert place.raw("web")["config"]["limits.memory"] == "64MiB"
            mend()
            place.run("reconcile", "--now")
            watch.until("UsedAgain")
        last = origin.commit(web("96MiB"))
        place.run("reconcile", "--now")
        watch.until("Applied", "Container/web")
        watch.until("InSync")
        assert place.status()["source"]["applied"] == last
        assert place.raw("web")["config"]["limits.memory"] == "96MiB" and place.init("web") == init
