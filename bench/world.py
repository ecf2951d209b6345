"""A private LXD for the benches, and the manifests that go with it; everything is gone again afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import installed
from bench.peers.bare_pool import call
from reconciler.backends.lxd import daemon
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import Client

IMAGE = """\
apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox}
spec: {type: container, source: {build: {recipe: busybox}}}
"""
CONTAINER = """\
apiVersion: reconciler/v1
kind: Container
metadata:
  name: NAME
  labels: {tier: bench}
spec:
  image: busybox
  power: POWER
  memory: 64MiB
  config:
    user.purpose: bench
    user.number: "NUMBER"
"""


@dataclass(frozen=True, slots=True)
class World:
    """folder: scratch, 0700; socket: of the LXD; environment: what the processes under test get."""

    folder: Path
    socket: Path
    environment: dict[str, str]

    def reconciler(self, *arguments: str) -> list[str]:
        """Our command line, as it is once installed."""
        return [*installed.command(), *arguments]

    def run(self, *arguments: str) -> str:
        """Run our command line; RuntimeError with what it said when it fails."""
        done = subprocess.run(
            self.reconciler(*arguments), env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"reconciler {' '.join(arguments)}: {done.returncode}\n{done.stderr[-3000:]}")
        return done.stdout

    def call(self, method: str, url: str, body: Any = None) -> Any:
        """One raw call to the LXD, operations waited for."""
        return call(str(self.socket), method, url, body)

    def manifests(self, count: int, power: str = "stopped", prefix: str = "c") -> Path:
        """A folder with an image and that many containers, one file each."""
        folder = self.folder / f"{prefix}{count}"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "image.yaml").write_text(IMAGE)
        for number in range(count):
            text = CONTAINER.replace("NAME", f"{prefix}{count}-{number}").replace("NUMBER", str(number))
            (folder / f"{number:05}.yaml").write_text(text.replace("POWER", power))
        return folder

    def fingerprint(self) -> str:
        """The fingerprint behind the alias that our Image made."""
        return str(self.call("GET", "/1.0/images/aliases/busybox")["target"])

    def clear(self) -> None:
        """Delete every instance."""
        names = [path.rpartition("/")[2] for path in self.call("GET", "/1.0/instances")]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._delete, names))

    def _delete(self, name: str) -> None:
        url = f"/1.0/instances/{urllib.parse.quote(name)}"
        if self.call("GET", url)["status"] != "Stopped":
            self.call("PUT", f"{url}/state", {"action": "stop", "force": True, "timeout": 30})
        self.call("DELETE", url)


@contextlib.contextmanager
def world() -> Iterator[World]:
    """A private LXD with a pool, in a scratch folder."""
    folder = Path(tempfile.mkdtemp(prefix="rbench"))
    running = daemon.start(folder / "lxd")
    try:
        client = Client(Address(socket=running.socket))
        daemon.preseed(client)
        client.close()
        environment = {"RECONCILER_STATE_DIR": str(folder / "state"), "LXD_SOCKET": str(running.socket)}
        here = World(folder, running.socket, environment)
        try:
            yield here
        finally:
            # By their folders: listing them ends with 1 while the LXD inside of one is not known yet.
            if machines := [f"VirtualMachine/{one.name}" for one in (folder / "state" / "vms").glob("*")]:
                here.run("delete", "--yes", "--confirm-delete", *machines)
    finally:
        daemon.stop(folder / "lxd", timeout=300)
        shutil.rmtree(folder)


def dump(path: Path, data: Any) -> None:
    """JSON into a file."""
    path.write_text(json.dumps(data))
