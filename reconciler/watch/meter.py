"""WATCH: what is counted, named after the metrics of Kubernetes' controllers. The only home of prometheus_client, which
is imported when somebody asks: most watches are never asked.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Meter:
    """Counts; any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: Counter[str] = Counter()
        self._steps: Counter[tuple[str, str]] = Counter()
        self._plain: Counter[str] = Counter()
        self._times, self._total = [0] * (len(_TIMES) + 1), 0.0
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []

    def looked(self, seconds: float, result: str) -> None:
        """One pass. result: ``success`` (in sync), ``changes``, ``held`` or ``error``."""
        with self._lock:
            self._looks[result] += 1
            self._times[bisect_left(_TIMES, seconds)] += 1
            self._total += seconds
            self._plain["errors"] += result == "error"

    def step(self, verb: str, result: str) -> None:
        """One step has ended."""
        with self._lock:
            self._steps[verb, result] += 1
            self._plain["errors"] += result == "failed"

    def drift(self, found: int = 0, healed: int = 0) -> None:
        """Drift was seen, or mended."""
        with self._lock:
            self._plain.update(found=found, healed=healed)

    def gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        """A number that is asked for when somebody wants to know it."""
        self._gauges.append((name, words, value))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry())

    def serve(self, address: str, port: int) -> None:
        """Over HTTP, too. Raises OSError."""
        from prometheus_client import start_http_server

        start_http_server(port, address, self._registry())

    def collect(self) -> Iterator[Metric]:
        """What a registry asks of whoever is registered with it."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        with self._lock:
            looks, steps, plain = dict(self._looks), dict(self._steps), dict(self._plain)
            times, total = list(accumulate(self._times)), self._total
        counted = CounterMetricFamily("reconcile", "Passes, by what came of them.", labels=["result"])
        for result, count in looks.items():
            counted.add_metric([result], count)
        yield counted
        yield CounterMetricFamily("reconcile_errors", "Passes and steps that failed.", plain.get("errors", 0))
        buckets = [(str(most), float(count)) for most, count in zip((*_TIMES, "+Inf"), times, strict=True)]
        yield HistogramMetricFamily("reconcile_time_seconds", "Time to look and plan.", buckets, total)
        carried_out = CounterMetricFamily("reconciler_plan_steps", "Steps carried out.", labels=["verb", "result"])
        for labels, count in steps.items():
            carried_out.add_metric(list(labels), count)
        yield carried_out
        words = "Resources that somebody else changed."
        yield CounterMetricFamily("reconciler_drift_found", words, plain.get("found", 0))
        words = "Of these: made as declared again."
        yield CounterMetricFamily("reconciler_drift_healed", words, plain.get("healed", 0))
        for name, said, value in self._gauges:
            yield GaugeMetricFamily(name, said, value())

    def _registry(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry()
        registry.register(self)
        return registry
