"""A repository that is served, and sources that read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.gitops import GitSource, Repository
from tests.support.repository import Origin

Source = Callable[..., GitSource]


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    tmp_path.chmod(0o700)
    (tmp_path / "origin").mkdir()
    found = Origin.make(tmp_path / "origin")
    found.serve()
    yield found
    found.end()


@pytest.fixture
def source(origin: Origin, tmp_path: Path) -> Source:
    """Makes one; the state folder stays the same, so a second one is the first after a restart."""

    def make(**fields: object) -> GitSource:
        about = {"path": "lab", "protocols": ("git",), **fields}
        return GitSource(Repository(origin.url, **about), tmp_path / "state")  # type: ignore[arg-type]

    return make
