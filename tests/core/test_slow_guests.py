"""backends/qemu: a guest agent takes its time where the host is busy; where it is asked only once, it is heard out."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.backends.qemu import observe, records, survey
from reconciler.backends.qemu.folders import Folder, folder_of
from reconciler.backends.qemu.records import Record
from reconciler.model import Observed, Power, ResourceId
from reconciler.ports import Settings

TAKES = 1.5
VM = ResourceId("VirtualMachine", "vm")
UUID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Of a VM whose agent takes so long to say its first word; there is nothing to read in its files."""
    place = folder_of(tmp_path, tmp_path / "run", "vm")
    place.make()
    records.save(place, Record(str(VM), "tests", UUID, UUID, 7))
    place.agent.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place.agent))
        server.listen()
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield place
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def serve(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            asked = json.loads(line.lstrip(b"\xff"))
            if asked["execute"] == "guest-sync-delimited":
                time.sleep(TAKES)
                connection.sendall(b"\xff" + json.dumps({"return": asked["arguments"]["id"]}).encode() + b"\n")
            else:
                connection.sendall(b'{"return": {"count": 0, "buf-b64": "", "eof": true}}\n')


def test_it_answers_all_the_same(folder: Folder, tmp_path: Path) -> None:
    seen = Observed(VM, "qemu", {"ready": {"guestAgent": True}}, Power.RUNNING)
    found = survey.probe(Settings("tests", tmp_path, tmp_path / "run"), seen)
    assert {one.type: one.status for one in found} == {"Ready": True, "GuestAgent": True}


def test_what_only_it_can_tell_is_told(folder: Folder) -> None:
    assert observe._word(folder, ["/proc/mounts"]) == {"/proc/mounts": b""}
