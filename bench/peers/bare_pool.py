"""The bare limit of making containers: a thread pool that sends nothing but the calls themselves.

``bare_pool.py SOCKET FINGERPRINT COUNT [--start]``: creates (and starts) containers bare-0 … from an image.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_local = threading.local()


class Connection(http.client.HTTPConnection):
    """Plain http over a unix socket, kept open."""

    def __init__(self, path: str) -> None:
        super().__init__("lxd", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def call(path: str, method: str, url: str, body: Any = None) -> Any:
    if getattr(_local, "path", None) != path:  # another LXD: one bench follows the other
        _local.path, _local.connection = path, Connection(path)
    _local.connection.request(method, url, json.dumps(body) if body is not None else None)
    answer = json.loads(_local.connection.getresponse().read())
    if answer["type"] == "error":
        raise RuntimeError(answer["error"])
    if answer["type"] == "async":
        done = call(path, "GET", answer["operation"] + "/wait?timeout=120")
        if done["status_code"] != 200:
            raise RuntimeError(done["err"])
        return done
    return answer["metadata"]


def main() -> None:
    path, fingerprint, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def launch(number: int) -> None:
        name = f"bare-{number}"
        source = {"type": "image", "fingerprint": fingerprint}
        body = {"name": name, "source": source, "config": {"limits.memory": "64MiB"}}
        call(path, "POST", "/1.0/instances", body)
        if "--start" in sys.argv:
            call(path, "PUT", f"/1.0/instances/{name}/state", {"action": "start", "timeout": 30})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(launch, range(count)))


if __name__ == "__main__":
    main()
