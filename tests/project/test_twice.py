"""The project itself: which failures are tried a second time, and which are not."""

from __future__ import annotations

import pytest

from tests.support.twice import Failures


@pytest.mark.parametrize(
    ("seen", "again"),
    [
        ([], False),
        ([("tests/qemu/test_a.py::test_b", "call")], True),
        ([("tests/lxd/test_a.py::test_b[x]", "setup"), ("tests/lxd/test_a.py::test_c", "setup")], True),
        ([("tests/lxd/test_a.py::test_b", "teardown")], False),  # something was left behind
        ([("tests/lxd/test_a.py::test_b", "???")], False),  # the process that ran it died
        ([("tests/core/test_a.py::test_b", "call")], False),  # nothing there can be starved
        ([("tests/qemu/test_a.py::test_b", "call"), ("tests/core/test_a.py::test_b", "call")], False),
        ([(f"tests/qemu/test_{number}.py::test_b", "call") for number in range(4)], False),
    ],
)
def test_a_second_try_is_for_few_and_for_real_guests(seen: list[tuple[str, str]], again: bool) -> None:
    failures = Failures()
    failures.seen = seen
    assert failures.may_be_starved is again
