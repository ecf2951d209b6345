"""For every test: a state folder of the run's own, so that nothing of the user's is read or written; and two streams.

With ``-n 2 --dist loadgroup`` what needs an LXD runs beside what needs QEMU alone, and the rest fills up. Within a
stream tests come one after the other: two LXDs on one machine would get in the way of each other's bridges and cgroups.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
STREAMS = {"e2e": "lxd", "lxd": "lxd", "watch": "lxd", "faults": "lxd", "qemu": "qemu"}
"""Which folder's tests come one after the other in which stream. Those not named go by file, wherever there is room."""


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long streams come first, so that both workers are busy to the end."""
    order = list(dict.fromkeys(STREAMS.values()))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_stream(item)))
    items.sort(key=lambda item: order.index(_stream(item)) if _stream(item) in order else len(order))


def _stream(item: pytest.Item) -> str:
    within = item.path.relative_to(ROOT)
    return STREAMS.get(within.parts[0], str(within))


@pytest.fixture(scope="session", autouse=True)
def own_state() -> Iterator[Path]:
    """Where code keeps things that is not told where: gone when the run ends."""
    folder = Path(tempfile.mkdtemp(prefix="rt-state-"))
    before = os.environ.get("RECONCILER_STATE_DIR")
    os.environ["RECONCILER_STATE_DIR"] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop("RECONCILER_STATE_DIR")
        if before is not None:
            os.environ["RECONCILER_STATE_DIR"] = before
        shutil.rmtree(folder)
