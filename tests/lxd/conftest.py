"""One private LXD for the whole session, one clean Lab for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lxd import Lab, PrivateLxd, lab_on, stocked_lxd


@pytest.fixture(scope="session")
def lxd() -> Iterator[PrivateLxd]:
    """A private LXD that holds the busybox image."""
    with stocked_lxd() as started:
        yield started


@pytest.fixture
def lab(lxd: PrivateLxd) -> Iterator[Lab]:
    """The engine on it; what the test leaves is removed."""
    with lab_on(lxd) as opened:
        yield opened
