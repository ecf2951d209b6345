"""Our own process killed (really: SIGKILL) at every boundary of an apply: the next one finishes, nothing is left over.

After one boundary is before the next: what lies between them has no effect that outlives us.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import kernels, launch, process, qemu_img, records
from reconciler.backends.qemu.client import Monitor
from reconciler.model import Desired, Power, ResourceId
from tests.support.qemu import MIB, Lab, holders, remains

VM = ResourceId("VirtualMachine", "vm")
DISK = {"size": MIB, "format": "qcow2", "readOnly": False}
MOST = 60
"""More boundaries than any apply has."""

EVERY = pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.proof)])
"""Each boundary takes seconds: always some of them, all of them with ``./just proofs``."""

BOUNDARIES: tuple[tuple[Any, str], ...] = (
    (Monitor, "execute"),
    (Monitor, "execute_with"),
    (Monitor, "execute_and_wait"),
    (records, "write_private"),
    (process, "kill"),
    (launch, "listen"),
    (qemu_img, "create"),
    (kernels, "copy"),
    (subprocess, "Popen"),
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "rmdir"),
    (Path, "mkdir"),
)


def die_at(boundary: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that kills itself at that boundary (counted from 1); whether it got to it."""
    child = os.fork()
    if child == 0:
        try:
            _arm(boundary)
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _arm(boundary: int) -> None:
    passed = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == boundary:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return step

    for home, name in BOUNDARIES:
        setattr(home, name, wrap(getattr(home, name)))


@EVERY
def test_create(lab: Lab, every: int) -> None:
    want = lab.idle(disks={"own": DISK}, nics={"eth0": {"type": "user", "model": "virtio-net-pci"}})
    for boundary in range(1, MOST, every):
        died = die_at(boundary, lambda: lab.apply(want))
        lab.converge(want)
        assert len(holders(lab.state)) == 1
        lab.delete(VM)
        assert remains(lab.state) == []
        if not died:
            assert boundary > 15
            return
    raise AssertionError("an apply without an end")


@EVERY
@pytest.mark.parametrize("change", ["restarted", "off", "renamed"])
def test_change(lab: Lab, change: str, every: int) -> None:
    start = lab.idle(disks={"own": DISK}, power="stopped" if change == "renamed" else "running")
    want = {"restarted": _restarted, "off": _off, "renamed": _renamed}[change](start)
    for boundary in range(1, MOST, every):
        lab.converge(start)
        own = lab.folder().disk("own", "qcow2").stat().st_ino
        died = die_at(boundary, lambda: lab.apply(want))
        lab.converge(want)
        assert lab.folder(want.id.name).disk("own", "qcow2").stat().st_ino == own
        assert len(holders(lab.state)) == (want.spec["power"] == "running")
        if want.id != VM:
            lab.delete(want.id)
            assert remains(lab.state) == []
        if not died:
            assert boundary > 5
            return
    raise AssertionError("an apply without an end")


@EVERY
def test_delete(lab: Lab, every: int) -> None:
    other = ResourceId("VirtualMachine", "other")
    want = lab.idle(disks={"own": DISK})
    for boundary in range(1, MOST, every):
        lab.converge(want, lab.idle(other.name, power="stopped"))
        died = die_at(boundary, lambda: lab.delete(VM))
        lab.delete(VM)
        lab.delete(other)  # whatever is done next takes away what no record stands for
        assert remains(lab.state) == []
        if not died:
            return


def _restarted(want: Desired) -> Desired:
    return replace(want, spec={**want.spec, "cpuModel": "qemu64"})


def _off(want: Desired) -> Desired:
    return replace(want, spec={**want.spec, "power": Power.STOPPED.value})


def _renamed(want: Desired) -> Desired:
    return replace(want, id=ResourceId("VirtualMachine", "new"), renamed_from=want.id)
