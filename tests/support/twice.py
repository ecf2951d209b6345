"""What ``./just test`` calls: the suite in two processes, and what failed there on a real guest once more, alone.

Two guests under emulation share two cores with a second test; one that is starved is told from a defect by trying it
with nothing beside it. A defect fails alone, too. What needed its second try is named at the end: it is unsteady, and
to be mended. No second try is given to pure tests, to what was left behind, or where more than a few files fail.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import LONG

FEW = 3  # files
PAIR = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
REAL = tuple(f"tests/{folder}/" for folder in LONG)


class Failures:
    """What a run had: each failed test, and in which of setup, call and teardown."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.seen.append((report.nodeid, str(report.when)))

    @property
    def tests(self) -> list[str]:
        return sorted({name for name, _ in self.seen})

    @property
    def may_be_starved(self) -> bool:
        """Whether few failed, all on real guests, and none while clearing up."""
        files = {name.partition("::")[0] for name in self.tests}
        return 0 < len(files) <= FEW and all(
            name.startswith(REAL) and when in ("setup", "call") for name, when in self.seen
        )


def main(told: list[str]) -> int:
    """Pytest's exit code: of the one run, or of the second where there was one."""
    failures = Failures()
    code = int(pytest.main([*PAIR, *told], plugins=[failures]))
    if code != pytest.ExitCode.TESTS_FAILED or not failures.may_be_starved:
        return code
    print(f"\n{len(failures.tests)} failed beside another test; once more, alone:", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", *failures.tests]).returncode
    if not code:
        print("unsteady, passed alone:", *failures.tests, sep="\n  ", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
