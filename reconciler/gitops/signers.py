"""GITOPS: whose signatures count: a copy of the allowed signers file, and a keyring of our own.

Both files lie outside of the repository and are written by root or the caller alone; what git is given is our copy, so
that nobody can exchange them between our look and git's.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler import manifest
from reconciler.gitops.git import PATH, Git
from reconciler.gitops.state import Repository
from reconciler.paths import private_dir, write_private
from reconciler.problems import ManifestError, Problem

_GPG_CONF = b"batch\nno-tty\nno-auto-key-retrieve\nno-auto-key-locate\ntrust-model always\nno-autostart\n"


@dataclass(frozen=True, slots=True)
class Signers:
    """digest: changes with who is listed, and with whether signatures are asked for at all."""

    digest: str
    options: tuple[str, ...] = ()
    home: Path | None = None

    def taught(self, git: Git) -> Git:
        """The same git, with the keyring for signatures of OpenPGP."""
        return git if self.home is None else replace(git, more={**git.more, "GNUPGHOME": str(self.home)})


def signers(repository: Repository, folder: Path) -> Signers:
    """folder: of ours, for the copies. Raises ManifestError when a file cannot be trusted or is not there."""
    if not repository.signed:
        return Signers("unsigned")
    options: list[str] = []
    digest, home = hashlib.sha256(), None
    for given in (repository.signers, repository.keyring):
        digest.update(hashlib.sha256(_trusted(given) if given is not None else b"").digest())
    if repository.signers is not None:
        copy, listed = private_dir(folder) / "allowed-signers", _trusted(repository.signers)
        if not copy.exists() or copy.read_bytes() != listed:
            write_private(copy, listed)
        options += ["gpg.ssh.program=ssh-keygen", f"gpg.ssh.allowedSignersFile={copy}"]
    if repository.keyring is not None:
        options.append("gpg.program=gpg")
        home = _keyring(folder, _trusted(repository.keyring))
    return Signers(digest.hexdigest(), tuple(options), home)


def _trusted(path: Path) -> bytes:
    data = manifest.read_trusted(str(path))
    if data is None:
        raise ManifestError(Problem("there is no such file", subject=str(path), hint="it says whose commits count"))
    return data


def _keyring(folder: Path, keys: bytes) -> Path:
    """A home for gpg that holds these keys and no others; kept as long as they are the same."""
    home = private_dir(folder) / f"gnupg-{hashlib.sha256(keys).hexdigest()[:12]}"
    if home.exists():
        return home
    for old in folder.glob("gnupg-*"):
        shutil.rmtree(old, ignore_errors=True)
    fresh = private_dir(folder / "gnupg-new")
    write_private(fresh / "gpg.conf", _GPG_CONF)
    environment = {"PATH": PATH, "GNUPGHOME": str(fresh), "LC_ALL": "C", "HOME": str(fresh)}
    command = ["gpg", "--status-fd", "1", "--import"]
    done = subprocess.run(command, input=keys, capture_output=True, env=environment, timeout=60)
    # Its exit code also counts that there is no agent, where the path of ours is too long for the name of a socket.
    if b"IMPORT_OK" not in done.stdout:
        shutil.rmtree(fresh, ignore_errors=True)
        said = done.stderr.decode(errors="replace").strip()[-300:]
        hint = "gpg --export KEY… writes one"
        raise ManifestError(Problem("the keyring cannot be read by gpg", detail=said or None, hint=hint))
    return fresh.rename(home)
