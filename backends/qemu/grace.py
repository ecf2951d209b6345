"""APPLY, how patient we are with a guest that is to go down, or that is to let go of or to use something."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds.

    agent:  to shut down when the guest agent was told so
    button: to shut down when only the power button was pressed, which many guests ignore
    plug:   for QEMU itself to end
    device: to let go of a device
    follow: to stand still when it is to take or to give back memory, or to use a CPU
    """

    agent: float = 60.0
    button: float = 15.0
    plug: float = 10.0
    device: float = 30.0
    follow: float = 15.0


GRACE = Grace()
