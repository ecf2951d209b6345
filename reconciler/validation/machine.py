"""VALIDATE: what this machine has, as far as manifests can ask for too much of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Machine:
    """cpus: number of CPUs; memory: bytes."""

    cpus: int
    memory: int


@cache
def this_machine() -> Machine:
    """The machine that we run on."""
    return Machine(os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
