"""GITOPS: the bare mirror: what the server's branch points at, how commits follow each other, who signed them.

It has no work tree and never gets one. Three refs of our own hold on to what matters: ``seen``, ``head``, ``applied``.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.gitops.git import Failed, Git
from reconciler.gitops.signers import Signers
from reconciler.gitops.state import Repository, shown_url
from reconciler.paths import private_dir
from reconciler.problems import Problem

_REF = "refs/reconciler"
_LOCAL = 60.0
_MANY_PACKS, _MANY_LOOSE = 50, 27
_AT_ONCE = 100
"""Commits whose signatures one git looks at: it ends badly when one of them is not right."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LEFT_OVER = ("*.lock", "refs/**/*.lock", "logs/**/*.lock", "objects/**/tmp_*", "objects/**/*.lock", "gc.pid")


class Trouble(Exception):
    """Why nothing newer is accepted; what was accepted stays. reached: whether the server answered."""

    def __init__(self, problem: Problem, reached: bool) -> None:
        super().__init__(problem.summary)
        self.problem, self.reached = problem, reached


@dataclass(frozen=True, slots=True)
class Mirror:
    """One repository, one branch."""

    git: Git
    repository: Repository

    def prepare(self, tidy: bool) -> None:
        """Make the mirror where there is none. tidy: whoever used it last died over it and may have left locks."""
        if self._aside.exists():
            self._put_back()
        if not (self.git.folder / "HEAD").exists():
            self._begin()
        elif tidy:
            for pattern in _LEFT_OVER:
                for path in self.git.folder.glob(pattern):
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def anew(self) -> Iterator[None]:
        """With an empty mirror in its place, which stays if all goes well: else the old one may be of some use yet."""
        self.git.folder.rename(self._aside)
        try:
            self._begin()
            yield
        except BaseException:
            self._put_back()
            raise
        shutil.rmtree(self._aside)

    @property
    def _aside(self) -> Path:
        return self.git.folder.with_suffix(".broken")

    def _put_back(self) -> None:
        shutil.rmtree(self.git.folder, ignore_errors=True)
        self._aside.rename(self.git.folder)

    def _begin(self) -> None:
        shutil.rmtree(self.git.folder, ignore_errors=True)
        private_dir(self.git.folder)
        self.git.run("init", "--quiet", "--bare", "--template=", str(self.git.folder))

    def ask(self) -> str | None:
        """What the server's branch points at now; None: there is none. Raises Trouble; Failed when we are broken."""
        ref = f"refs/heads/{self.repository.ref}"
        words = ("ls-remote", "--exit-code", "--", self.repository.url, ref)
        try:
            _, output = self.git.run(*words, timeout=self.repository.timeout, codes=(0, 2))
        except Failed as error:
            self.git.run("rev-parse", "--git-dir", timeout=_LOCAL)  # is it us?
            raise self._unreachable(error) from None
        for line in output.decode("ascii", "replace").splitlines():
            commit, _, name = line.partition("\t")
            if name == ref and _COMMIT.fullmatch(commit):  # the server matches ends: refs/x/refs/heads/main, too
                return commit
        return None

    def fetch(self) -> str:
        """Bring the branch here, whatever became of it; where it points. Raises Trouble; Failed when we are broken."""
        refspec = f"+refs/heads/{self.repository.ref}:{_REF}/seen"
        words = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance")
        place = ("--end-of-options", self.repository.url, refspec)
        try:
            self.git.run("fetch", *words, *place, timeout=self.repository.timeout)
        except Failed as error:
            if not self.is_whole():
                raise
            raise self._unreachable(error) from None
        return self._fetched() or self.git.text("rev-parse", "--verify", f"{_REF}/seen^{{commit}}", timeout=_LOCAL)

    def _fetched(self) -> str | None:
        """Where git has just written down that the branch points; None where it keeps refs otherwise."""
        with contextlib.suppress(OSError):
            found = (self.git.folder / _REF / "seen").read_text("ascii", "replace").strip()
            return found if _COMMIT.fullmatch(found) else None
        return None

    def is_whole(self) -> bool:
        """Whether everything that our refs lead to is here."""
        try:
            self.git.run("rev-list", "--objects", "--quiet", f"--glob={_REF}/*", timeout=300.0)
        except Failed:
            return False
        return True

    def _unreachable(self, error: Failed) -> Trouble:
        detail = shown_url(error.words.replace(self.repository.url, self.repository.shown))
        hint = "what was accepted last stays; it is tried again by itself"
        return Trouble(Problem("the repository cannot be read", None, self.name, detail, hint), reached=False)

    @property
    def name(self) -> str:
        """What people call it, without a password that may be in it."""
        return f"{self.repository.shown} {self.repository.ref}"

    def keep(self, name: str, commit: str) -> None:
        """Hold on to a commit as ``head`` or ``applied``."""
        self.git.run("update-ref", f"{_REF}/{name}", commit, timeout=_LOCAL)

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        return self.git.run("cat-file", "-e", f"{commit}^{{commit}}", codes=(0, 1, 128), timeout=_LOCAL)[0] == 0

    def follows(self, commit: str, earlier: str) -> bool:
        """Whether ``commit`` is ``earlier`` or comes after it; not, where either is not here."""
        words = ("merge-base", "--is-ancestor", earlier, commit)
        return self.git.run(*words, codes=(0, 1, 128), timeout=_LOCAL)[0] == 0

    def find(self, revision: str) -> str | None:
        """The full id of a commit that is here."""
        if not re.fullmatch(r"[0-9a-fA-F]{4,64}", revision):
            return None
        words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        code, output = self.git.run(*words, codes=(0, 1, 128), timeout=_LOCAL)
        return output.decode().strip() if code == 0 else None

    def seen(self) -> str | None:
        """What the branch pointed at when it was last fetched."""
        code, output = self.git.run("rev-parse", "--verify", "--quiet", f"{_REF}/seen", codes=(0, 1), timeout=_LOCAL)
        return output.decode().strip() if code == 0 else None

    def since(self, commit: str, earlier: str | None) -> Iterator[str]:
        """Every commit that came after ``earlier``, oldest first; without one, the commit itself."""
        if earlier is None:
            yield commit
            return
        yield from self.git.text("rev-list", "--reverse", "--topo-order", commit, f"^{earlier}", timeout=_LOCAL).split()

    def verify(self, commits: Sequence[str], signers: Signers) -> None:
        """Every one of them bears a signature of somebody listed, or Trouble. The exit code alone is believed."""
        git = signers.taught(self.git)

        def bear_signatures(*some: str) -> bool:
            timeout = _LOCAL + len(some)
            code, _ = git.run("verify-commit", *some, options=signers.options, codes=range(256), timeout=timeout)
            return code == 0

        for begin in range(0, len(commits), _AT_ONCE):
            some = commits[begin : begin + _AT_ONCE]
            if not bear_signatures(*some):
                wrong = next((commit for commit in some if not bear_signatures(commit)), some[-1])
                raise Trouble(self._unsigned(wrong), reached=True)

    def _unsigned(self, commit: str) -> Problem:
        header = self.git.run("cat-file", "commit", commit, timeout=_LOCAL)[1].partition(b"\n\n")[0]
        signed = b"\ngpgsig" in header
        words = "bears no signature that counts" if signed else "is not signed"
        hint = "have it signed by somebody who is listed, or list who signed it" if signed else "git commit -S signs"
        return Problem(f"commit {commit[:12]} {words}", None, self.name, hint=f"{hint}; what was accepted last stays")

    def tidy(self) -> None:
        """Let git pack what has gathered; that it cannot is no harm. Asked only when there is much: it costs, too."""
        packs = sum(1 for _ in self.git.folder.glob("objects/pack/*.pack"))
        loose = sum(1 for _ in self.git.folder.glob("objects/17/*"))  # the names are even: one folder tells of all
        if packs < _MANY_PACKS and loose < _MANY_LOOSE:
            return
        try:
            self.git.run("gc", "--auto", "--quiet", timeout=300.0)
        except Failed:
            return
