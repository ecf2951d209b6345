"""For every test: a state folder of the run's own, so that nothing of the user's is read or written.

``./just test`` runs the files in two processes (pytest-xdist), so a test may count on being alone in its own state
folder and in its own LXD, and not on being alone on this machine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
LONG = ("e2e", "qemu", "watch", "lxd", "faults", "images", "gitops")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, and the quick ones last: so both processes are busy to the end."""
    items.sort(key=lambda item: LONG.index(folder) if (folder := _folder(item)) in LONG else len(LONG))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).parts[0]


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
