"""The bare limit of changing a container that runs: LXD's own calls, and a look whether the container has it.

LXD takes a request, and its operation ends well or not: both are awaited. What its config says is not what the
container has: so the kernel is asked, as any careful script would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.world import World

_NAME = "bare"
_PLACE = f"/mnt/{_NAME}"


class Container:
    """The container called ``name``. shared: the folder that is shared with it."""

    def __init__(self, here: World, name: str, shared: Path) -> None:
        self._here = here
        self._url = f"/1.0/instances/{name}"
        self._volumes = "/1.0/storage-pools/default/volumes/custom"
        self._shared = shared

    def put_share(self) -> None:
        self._put({"type": "disk", "source": str(self._shared), "path": _PLACE, "readonly": "true"})

    def take_share(self) -> None:
        self._take()

    def put_disk(self) -> None:
        self._here.call("POST", self._volumes, {"name": _NAME, "type": "custom"})
        self._put({"type": "disk", "pool": "default", "source": _NAME, "path": _PLACE})

    def take_disk(self) -> None:
        self._take()
        self._here.call("DELETE", f"{self._volumes}/{_NAME}")

    def put_device(self) -> None:
        self._put({"type": "nic", "nictype": "p2p", "name": _NAME})

    def take_device(self) -> None:
        self._take()

    def _put(self, device: dict[str, str]) -> None:
        self._here.call("PATCH", self._url, {"devices": {_NAME: device}})
        self._look(there=True)

    def _take(self) -> None:
        raw: dict[str, Any] = self._here.call("GET", self._url)
        del raw["devices"][_NAME]
        self._here.call("PUT", self._url, raw)
        self._look(there=False)

    def _look(self, there: bool) -> None:
        listed = _NAME in self._here.call("GET", self._url)["devices"]
        pid = self._here.call("GET", f"{self._url}/state")["pid"]
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        cards = Path(f"/proc/{pid}/net/dev").read_text()
        if listed is not there or (_PLACE in mounts or f"{_NAME}:" in cards) is not there:
            raise RuntimeError("accepted, and not done")
