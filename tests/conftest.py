"""For every test: a state folder of the run's own, so that nothing of the user's is read or written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


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
