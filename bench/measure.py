"""How every bench here measures: contestants in turn within one run, so that a drifting machine hurts all alike.

A contestant is a callable that does the whole work once and returns the seconds that count.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Contestant = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds of all counted runs, sorted."""

    name: str
    seconds: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """The value below which this share of the runs lies (nearest rank)."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    @property
    def p50(self) -> float:
        return self.quantile(0.5)

    @property
    def p95(self) -> float:
        return self.quantile(0.95)


def alternate(contestants: Mapping[str, Contestant], rounds: int, warmup: int = 1) -> dict[str, Figures]:
    """Run every contestant once a round, in turn; the warm-up rounds do not count."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warmup + rounds):
        for name, contestant in contestants.items():
            seconds = contestant()
            if number >= warmup:
                found[name].append(seconds)
    return {name: Figures(name, tuple(sorted(seconds))) for name, seconds in found.items()}


def process(command: Sequence[str], environment: Mapping[str, str] | None = None, expect: int = 0) -> Contestant:
    """A contestant that is one whole process; its exit code is checked, so that failing fast does not win.

    Bytecode is kept, as it is for whatever is installed, even where the environment says not to write any.
    """
    bytecode = {"PYTHONDONTWRITEBYTECODE": ""}

    def run() -> float:
        began = time.perf_counter()
        done = subprocess.run(
            list(command),
            env={**os.environ, **bytecode, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        seconds = time.perf_counter() - began
        if done.returncode != expect:
            raise RuntimeError(
                f"{command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
            )
        return seconds

    return run


def table(title: str, ours: str, figures: Mapping[str, Figures], limit: tuple[str, float] | None = None) -> str:
    """The figures as text. limit: (name of the yardstick, how many times its p50 ours may take)."""
    lines = [title, f"  {'':24} {'p50':>9} {'p95':>9}   ours is"]
    for figure in figures.values():
        ratio = "" if figure.name == ours else f"{figures[ours].p50 / figure.p50:6.2f} × this"
        lines.append(f"  {figure.name:24} {_time(figure.p50):>9} {_time(figure.p95):>9}   {ratio}")
    if limit:
        name, most = limit
        times = figures[ours].p50 / figures[name].p50
        lines.append(f"  goal: at most {most:g} × {name}: {times:.2f}: {'met' if times <= most else 'NOT met'}")
    return "\n".join(lines)


def absolute(title: str, goals: Mapping[str, tuple[Figures, float]]) -> str:
    """For the few goals that are stated in seconds: figures beside the goal, for people to judge on their machine."""
    lines = [title]
    for name, (figure, most) in goals.items():
        verdict = "met" if figure.p50 <= most else "NOT met"
        lines.append(
            f"  {name:34} p50 {_time(figure.p50):>8}  p95 {_time(figure.p95):>8}  goal {_time(most):>8}  {verdict}"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
