"""A real bare repository, a person who commits to it, and servers on loopback: git's own daemon, ssh, https."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PERSON = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@x"}
ALONE = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
}


def git(folder: Path, *words: str, data: bytes | None = None, **more: str) -> str:
    """Run git there, with nobody's configuration; what it said."""
    done = subprocess.run(
        ["git", "-C", str(folder), *words], input=data, capture_output=True, env={**ALONE, **PERSON, **more}
    )
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def ssh_key(folder: Path, name: str) -> Path:
    """A fresh key; its public half beside it."""
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
    return path


@dataclass
class Origin:
    """The repository ``fleet.git`` below ``folder``, and a work tree beside it that pushes there.

    over: how it is served: ``git``, ``ssh`` or ``https``
    """

    folder: Path
    over: str = "git"
    port: int = 0
    daemon: subprocess.Popen[bytes] | None = None
    signing: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, over: str = "git") -> Origin:
        bare, work = folder / "fleet.git", folder / "work"
        git(folder, "init", "-q", "--bare", "--initial-branch=main", str(bare))
        git(folder, "init", "-q", "--initial-branch=main", str(work))
        git(work, "remote", "add", "origin", str(bare))
        return cls(folder, over)

    @property
    def url(self) -> str:
        name = "reader@127.0.0.1" if self.over == "ssh" else "127.0.0.1"
        return f"{self.over}://{name}:{self.port}/fleet.git"

    @property
    def key(self) -> Path:
        """With which ssh lets people in."""
        return self.folder / "reader"

    @property
    def known_hosts(self) -> Path:
        """By which ssh knows the server."""
        path = self.folder / "known_hosts"
        kind, key, *_ = (self.folder / "host.pub").read_text().split()
        path.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        return path

    @property
    def certificate(self) -> Path:
        """By which https is believed."""
        return self.folder / "certificate.pem"

    def git(self, *words: str, **more: str) -> str:
        return git(self.folder / "work", *words, data=None, **more)

    def sign_with(self, key: Path | None) -> None:
        """From now on, commits are signed by this key; None: by nobody."""
        self.signing = [] if key is None else ["-c", "gpg.format=ssh", "-c", f"user.signingkey={key}"]

    def commit(self, files: Mapping[str, str | None], push: bool = True) -> str:
        """Write files (None: delete), commit, push; the commit."""
        for name, text in files.items():
            path = self.folder / "work" / name
            if text is None:
                self.git("rm", "-q", "--", name)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            self.git("add", "--", name)
        self.git(*self.signing, "commit", "-q", "--allow-empty", "-m", "m", *(["-S"] if self.signing else []))
        if push:
            self.push()
        return self.git("rev-parse", "HEAD")

    def push(self, *words: str) -> None:
        self.git("push", "-q", *words, "origin", "HEAD:main")

    def serve(self) -> None:
        """Answer on loopback; on the same port as before, once there was one."""
        if self.port == 0:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        self.daemon = subprocess.Popen(self._server(), env=ALONE, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=60).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < deadline and self.daemon.poll() is None

    def _server(self) -> list[str]:
        """The command line of what serves."""
        here = Path(__file__).parent
        if self.over == "ssh":
            for name in ("host", "reader"):
                if not (self.folder / name).exists():
                    ssh_key(self.folder, name)
            words = [self.port, self.folder / "host", self.folder / "reader.pub", self.folder]
            return [sys.executable, str(here / "ssh_server.py"), *map(str, words)]
        if self.over == "https":
            key = self.folder / "certificate.key"
            if not key.exists():
                about = ["-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
                about += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(self.certificate)]
                subprocess.run(["openssl", "req", *about], check=True, capture_output=True)
            words = [self.port, self.certificate, key, self.folder]
            return [sys.executable, str(here / "https_server.py"), *map(str, words)]
        # git-daemon itself: "git daemon" would be a second process between us and it
        program = Path(git(self.folder, "--exec-path")) / "git-daemon"
        where = ["--listen=127.0.0.1", f"--port={self.port}", f"--base-path={self.folder}"]
        return [str(program), "--reuseaddr", "--export-all", *where]

    def vanish(self) -> None:
        """The server is gone."""
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait()
            self.daemon = None

    def end(self) -> None:
        self.vanish()
        shutil.rmtree(self.folder, ignore_errors=True)
