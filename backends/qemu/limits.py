"""APPLY, before anything is touched: how many CPUs and how much memory a machine can have here, at most."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache

from reconciler.backends.qemu.machine import SANDBOX
from reconciler.backends.qemu.process import kvm_groups
from reconciler.backends.qemu.programs import find_program
from reconciler.model import Spec
from reconciler.problems import Problem, Refused

_ALWAYS = 64
"""So many CPUs every QEMU that we support takes. Beyond, it depends on version and accelerator: QEMU is asked."""
_TIMEOUT = 20.0
_NOBODY = 0x6FFFFFFD
_GOOD_BYE = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'


def check_memory(spec: Spec, subject: str) -> None:
    """QEMU would take it, and the host would run out of memory some time later."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for field, wanted in spec["memory"].items():
        if int(wanted) > there:
            name = "memory" if field == "size" else f"memory.{field}"
            what = f"{name}: this host has {there >> 20} MiB, wanted are {int(wanted) >> 20} MiB"
            raise Refused(Problem(what, subject=subject))


def check_processors(spec: Spec, accelerator: str, subject: str) -> None:
    """Refused, with QEMU's own words, when its machine has no place for so many."""
    cpus = spec["cpus"]
    field = "max" if int(cpus.get("max", 0)) > int(cpus["count"]) else "count"
    if int(cpus[field]) <= _ALWAYS:
        return
    words = _try(find_program(), str(spec.get("machine", "q35")), accelerator, int(cpus[field]))
    if words:
        what = f"cpus.{field}: QEMU does not take {cpus[field]} with {accelerator}"
        raise Refused(Problem(what, subject=subject, detail=words))


@lru_cache(maxsize=16)
def _try(program: str, machine: str, accelerator: str, most: int) -> str:
    """What a QEMU says that is to make such a machine, and ends before it runs; nothing when all is well."""
    user = _NOBODY if os.geteuid() == 0 else None
    command = [program, "-S", "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", SANDBOX]
    command += ["-machine", machine, "-accel", accelerator, "-cpu", "max", "-m", "32", "-qmp", "stdio"]
    command += ["-smp", f"cpus=1,maxcpus={most}"]
    try:
        done = subprocess.run(
            command,
            input=_GOOD_BYE,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else kvm_groups(),
        )
    except subprocess.TimeoutExpired:
        return ""  # not known: the start will tell
    return "" if done.returncode == 0 else done.stderr.strip()[-500:]
