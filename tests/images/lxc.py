"""LXD's own command line on a private daemon: what a person would type, for looking at what an image does there."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any


class Lxc:
    """folder: the daemon's LXD_DIR; config: where the client may keep its own things."""

    def __init__(self, folder: Path, config: Path) -> None:
        self._environment = {**os.environ, "LXD_DIR": str(folder), "LXD_CONF": str(config)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command."""
        pipe = subprocess.PIPE
        command = ("lxc", *words)
        return subprocess.Popen(
            command, env=self._environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def __call__(self, *words: str) -> str:
        """Run a command that has to work; what it says."""
        process = self.start(*words)
        said, complaint = process.communicate(timeout=200)
        assert process.returncode == 0, complaint + said
        return said

    def inside(self, name: str, script: str) -> str:
        """What a shell in the container says."""
        return self("exec", name, "--", "sh", "-c", script)

    def info(self, name: str) -> dict[str, Any]:
        """The state of a container as LXD has it."""
        answer: dict[str, Any] = json.loads(self("query", f"/1.0/instances/{name}/state"))
        return answer

    def until(self, name: str, status: str) -> None:
        """Wait until LXD has the container in a state such as ``Stopped``."""
        watch = Stopwatch()
        while self.info(name)["status"] != status:
            assert watch.seconds < 120, self.info(name)

    def delete(self, name: str) -> None:
        """Whatever it is doing. Behind a container that stopped by itself LXD tidies up for a while, and says so."""
        if self.info(name)["status"] != "Stopped":
            self("stop", "--force", name)
        watch = Stopwatch()
        while (process := self.start("delete", name)).wait(120) != 0:
            complaint = process.communicate()[1]
            assert "is busy" in complaint and watch.seconds < 120, complaint
        process.communicate()

    def init(self, name: str) -> int:
        """A pidfd of the container's PID 1; the caller closes it."""
        return os.pidfd_open(self.info(name)["pid"])


def until(script: str) -> str:
    """A shell script that waits inside of the guest until ``script`` succeeds."""
    return f"until {script}; do usleep 20000; done"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun
