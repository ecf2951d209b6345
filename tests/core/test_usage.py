"""view/usage: numbers as people compare them."""

from __future__ import annotations

import pytest

from reconciler.model import QEMU, Observed, Power, ResourceId
from reconciler.view.text import render
from reconciler.view.usage import Taken, about, lasting, usage_document, usage_table


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (1536 << 20, "1.5GiB"), (3 << 40, "3.0TiB")]
)
def test_sizes(size: int, words: str) -> None:
    assert about(size) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0s"), (59, "59s"), (60, "1m 0s"), (3661, "1h 1m"), (4 * 86400 + 60, "4d 0h")]
)
def test_times(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_whoever_takes_most_comes_first() -> None:
    web = Observed(ResourceId("Container", "web"), "lxd/far", {}, Power.RUNNING)
    machine = Observed(ResourceId("VirtualMachine", "vm"), QEMU, {}, Power.RUNNING)
    taken = [Taken(web, 1.04, 1 << 20, 3, 70), Taken(machine, 180.06, 1 << 30, None, None)]
    assert render(usage_table(taken), colour=False).splitlines() == [
        "GUEST              HOST   CPU     MEMORY  PROCESSES  UPTIME",
        "VirtualMachine/vm  local  180.1%  1.0GiB",
        "Container/web      far    1.0%    1.0MiB  3          1m 10s",
    ]
    assert usage_document(taken) == [
        {"id": "Container/web", "host": "far", "cpu": 1.0, "memory": 1 << 20, "processes": 3, "uptime": 70},
        {
            "id": "VirtualMachine/vm",
            "host": "local",
            "cpu": 180.1,
            "memory": 1 << 30,
            "processes": None,
            "uptime": None,
        },
    ]
