"""Hypothesis on a machine of any speed, and what is left to chance: nothing in a normal run.

``./just soak`` and ``./just proofs`` set TESTS_AT_RANDOM: then examples and kills are others each time. A run of
``./just test`` takes the same ones again, so that what fails in it fails for what was changed.
"""

from __future__ import annotations

import os
import secrets

from hypothesis import HealthCheck, settings

AT_RANDOM = bool(os.environ.get("TESTS_AT_RANDOM"))
SEED = os.environ.get("FAULT_SEED") or (secrets.token_hex(4) if AT_RANDOM else "the same")
"""Of every other chance that tests take."""


def at_any_speed() -> None:
    """For all tests of this process whose modules are imported from now on."""
    profile = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=not AT_RANDOM)
    settings.register_profile("any speed", profile)
    settings.load_profile("any speed")
