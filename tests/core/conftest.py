"""The core's tests: properties hold however slow the machine is that tries them."""

from __future__ import annotations

from tests.support.examples import at_any_speed

at_any_speed()
