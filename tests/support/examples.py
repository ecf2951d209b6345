"""Hypothesis on a machine of any speed: how long an example takes, or takes to be thought of, is no failure."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def at_any_speed() -> None:
    """For all tests of this process whose modules are imported from now on."""
    settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any speed")
