"""backends/lxd/within: what a container in a VM holds on to, by the mount tables of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.backends.lxd.within import SightWithin, parse

TABLE = b"""\
21 1 0:19 / / rw,relatime shared:1 - overlay root rw,lowerdir=/below
57 21 0:40 / /mnt/shares/site ro,nosuid shared:7 - virtiofs site ro
58 21 0:41 / /mnt/shares/old rw - virtiofs old rw
59 58 0:42 / /mnt/shares/old rw - virtiofs old rw
60 21 0:43 / /mnt/shares/with\\040blank rw - virtiofs blank rw
"""


def container(source: str, path: str = "/www", name: str = "share-site", status: str = "Running") -> dict[str, Any]:
    device = {"type": "disk", "source": source, "path": path}
    return {"name": "deep", "status": status, "devices": {name: device, "eth0": {"type": "nic"}}}


def test_of_two_mounts_at_one_path_the_last_counts() -> None:
    found = parse(TABLE)
    assert found["/mnt/shares/old"] == "0:42" and found["/mnt/shares/with blank"] == "0:43" and found["/"] == "0:19"


@pytest.mark.parametrize(
    ("raw", "inside", "why"),
    [
        (container("/mnt/shares/site"), {"/www": "0:40"}, None),
        (container("/mnt/shares/site"), {"/www": "0:39"}, "what is mounted at /www is not what the VM has now"),
        (container("/mnt/shares/site"), {}, "nothing is mounted at /www"),
        (container("/mnt/shares/site", "/www/"), {"/www": "0:40"}, None),
        (container("/mnt/shares/gone"), {"/www": "0:39"}, None),
        (container("/mnt/shares/site", name="mine"), {}, None),
        (container("/mnt/shares/site", name="volume-site"), {}, None),
        (container("/mnt/shares/site", status="Stopped"), {}, None),
    ],
)
def test_a_container_has_what_its_vm_has(raw: dict[str, Any], inside: Mapping[str, str], why: str | None) -> None:
    missing = SightWithin(parse(TABLE), {"deep": inside}).missing(raw)
    assert missing == ({"share-site": why} if why else {})


def test_what_nobody_could_read_is_not_missing() -> None:
    assert SightWithin(parse(TABLE)).missing(container("/mnt/shares/site")) == {}
