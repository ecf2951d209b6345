"""The engines that are killed here: on real QEMUs, and on one private LXD."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lxd import Lab as LxdLab
from tests.support.lxd import PrivateLxd, lab_on, stocked_lxd
from tests.support.qemu import Lab as QemuLab
from tests.support.qemu import lab_in


@pytest.fixture
def machines() -> Iterator[QemuLab]:
    """The engine on an empty state folder."""
    with lab_in() as opened:
        yield opened


@pytest.fixture(scope="session")
def lxd() -> Iterator[PrivateLxd]:
    """A private LXD that holds the busybox image."""
    with stocked_lxd() as started:
        yield started


@pytest.fixture
def containers(lxd: PrivateLxd) -> Iterator[LxdLab]:
    """The engine on it."""
    with lab_on(lxd) as opened:
        yield opened
