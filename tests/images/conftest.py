"""Fixtures of the image tests: a state folder for each test, one for the whole run, and a web server on loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.backends.images import MachineImage, machine_image
from tests.images.web import Web
from tests.support.examples import at_any_speed

at_any_speed()


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def lasting_state() -> Iterator[Path]:
    """One state folder for all tests that need the kernel package: it is downloaded once."""
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def busybox_machine(lasting_state: Path) -> MachineImage:
    """The busybox VM."""
    return machine_image({"build": {"recipe": "busybox"}}, lasting_state, lambda _: None)


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server on loopback that behaves as badly as it is told to."""
    with Web() as server:
        yield server
