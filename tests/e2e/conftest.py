"""The real command line, against a private LXD and real QEMUs, in a state folder of its own; nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd import daemon
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import Client
from tests.support.qemu import remains

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "reconciler.cli"]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit {self.code}\nstdout:\n{self.out}\nstderr:\n{self.err}"


@dataclass(frozen=True, slots=True)
class Place:
    """A machine as the command line sees it: its own state folder, its own LXD, a folder for manifests.

    within: what every command is started by, see ``own_hosts``.
    """

    state: Path
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()

    def run(self, *words: str, timeout: float = 240, stdin: str = "", **extra: str) -> Done:
        """One command, as a user would call it without a terminal. A traceback is never shown."""
        done = subprocess.run(
            [*self.within, *COMMAND, *words],
            env={**self.environment, **extra},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
        )
        assert "Traceback (most recent call last)" not in done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, **extra: Any) -> Done:
        """A command that has to end with 0."""
        done = self.run(*words, **extra)
        assert done.code == 0, f"{' '.join(words)}: {done}"
        return done

    @contextlib.contextmanager
    def started(self, *words: str, until: str) -> Iterator[subprocess.Popen[str]]:
        """A command that is still running, and has said ``until`` on stderr; ended at the end, whatever happens."""
        with subprocess.Popen(
            [*self.within, *COMMAND, *words],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        ) as process:
            try:
                assert process.stderr is not None
                said = ""
                while until not in (line := process.stderr.readline()):
                    said += line
                    assert process.poll() is None, said + process.stderr.read()
                yield process
            finally:
                process.kill()

    def write(self, name: str, text: str) -> str:
        """A manifest in the folder; its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def names(self, *words: str) -> set[str]:
        """What ``get -o name`` lists, Hosts apart: they are where things are, not things that were made."""
        listed = self.ok("get", "-o", "name", *words).out.split()
        return {name for name in listed if not name.startswith("Host/")}


@contextlib.contextmanager
def own_hosts(file: Path) -> Iterator[tuple[str, ...]]:
    """A view of this machine in which that file is /etc/hosts; what a command has to begin with to be in it, and all
    that it starts. The file of the machine itself is neither read nor written."""
    script = 'mount --bind "$1" /etc/hosts && echo there && exec cat'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "there\n"
        yield ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "sh", "-c", 'cd "$0" && exec "$@"', str(file.parent))
        holder.stdin.close()


@pytest.fixture(scope="session")
def machine() -> Iterator[Place]:
    """The private LXD, started once a session; stopped at the end, which is checked."""
    state = Path(tempfile.mkdtemp(prefix="rec-e2e-"))
    folder = state / "lxd"
    running = daemon.start(folder)
    client = Client(Address(socket=running.socket))
    daemon.preseed(client)
    client.close()
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(state), "LXD_SOCKET": str(running.socket)}
    yield Place(state, state, environment)
    daemon.stop(folder)
    assert not daemon.leftovers(folder)
    assert remains(state) == []
    shutil.rmtree(state)


@pytest.fixture
def place(machine: Place, tmp_path: Path) -> Iterator[Place]:
    """A folder for manifests; whatever a test leaves is a failure of that test, and is taken away."""
    tmp_path.chmod(0o700)
    here = Place(machine.state, tmp_path, machine.environment)
    before = strangers(here)
    yield here
    left = here.names()
    for name in sorted(left):
        here.run("delete", "--yes", "--confirm-delete", name)
    assert not left, f"left behind: {left}"
    assert strangers(here) == before


def strangers(place: Place) -> set[str]:
    """What is not ours and stays so; without networks: LXD lists every interface that this machine happens to have."""
    return {name for name in place.names("--all") if not name.startswith("Network/")}
