"""A clean Lab for each test; the busybox image is made once a session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.qemu import Lab, busybox_image, lab_in


@pytest.fixture(scope="session")
def images() -> Iterator[Path]:
    """An image store that holds the busybox VM."""
    state = Path(tempfile.mkdtemp(prefix="rt-images-"))
    try:
        lab = Lab(state)
        lab.converge(busybox_image(lab))
        yield state / "images"
    finally:
        shutil.rmtree(state)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The engine on an empty state folder; what the test leaves is a failure."""
    with lab_in() as opened:
        yield opened


@pytest.fixture(scope="module")
def lasting(images: Path) -> Iterator[Lab]:
    """The same for all tests of a module: a guest that runs is changed by the next test, which takes far less than a
    boot. What a module's tests leave is a failure of the last one."""
    with lab_in(images) as opened:
        yield opened


@pytest.fixture
def linux(images: Path) -> Iterator[Lab]:
    """The same, with the busybox image at hand."""
    with lab_in(images) as opened:
        yield opened
