"""WATCH: what is counted, named after the metrics of Kubernetes' controllers. The only home of prometheus_client."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Meter:
    """Counts; any thread may."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._looks = Counter("reconcile", "Passes, by what came of them.", ["result"], registry=registry)
        self._errors = Counter("reconcile_errors", "Passes and steps that failed.", registry=registry)
        self._times = Histogram("reconcile_time_seconds", "Time to look and plan.", buckets=_TIMES, registry=registry)
        self._steps = Counter("reconciler_plan_steps", "Steps carried out.", ["verb", "result"], registry=registry)
        self._found = Counter("reconciler_drift_found", "Resources that somebody else changed.", registry=registry)
        self._healed = Counter("reconciler_drift_healed", "Of these: made as declared again.", registry=registry)
        self._gauges = registry

    def looked(self, seconds: float, result: str) -> None:
        """One pass. result: ``success`` (in sync), ``changes``, ``held`` or ``error``."""
        self._looks.labels(result).inc()
        self._times.observe(seconds)
        if result == "error":
            self._errors.inc()

    def step(self, verb: str, result: str) -> None:
        """One step has ended."""
        self._steps.labels(verb, result).inc()
        if result == "failed":
            self._errors.inc()

    def drift(self, found: int = 0, healed: int = 0) -> None:
        """Drift was seen, or mended."""
        self._found.inc(found)
        self._healed.inc(healed)

    def gauge(self, name: str, words: str, value: Callable[[], float]) -> None:
        """A number that is asked for when somebody wants to know it."""
        Gauge(name, words, registry=self._gauges).set_function(value)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)

    def serve(self, address: str, port: int) -> None:
        """Over HTTP, too. Raises OSError."""
        start_http_server(port, address, self._registry)
