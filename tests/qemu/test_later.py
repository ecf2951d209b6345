"""What waits for a restart: recorded beside what is, shown as a condition, and true after the next start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.model import Desired, Verb
from tests.support.qemu import Lab


def waiting(lab: Lab) -> str | None:
    """The fields that wait, by the VM's own condition."""
    found = [one.message for one in lab.look().conditions if one.type == "RestartPending" and one.status]
    return found[0] if found else None


def with_model(want: Desired) -> Desired:
    """The same VM with another model of processor."""
    return replace(want, spec={**want.spec, "cpuModel": "qemu64"})


def held_back(want: Desired) -> Desired:
    """The same VM, that change left for later. (What is done now is another field, which does no harm.)"""
    now = {**want.spec, "restart": "always"}
    return replace(want, spec=now, later={**now, "cpuModel": "qemu64"})


def test_it_waits_until_the_guest_is_restarted(lab: Lab) -> None:
    vm = lab.idle()
    lab.converge(vm)
    first = lab.process()
    lab.apply(held_back(vm))
    assert lab.process() == first
    assert waiting(lab) == "cpuModel"
    lab.backend.power(vm.id, "restart", True, 5, lambda _: None)
    assert lab.process() != first
    assert waiting(lab) is None
    assert lab.look().spec["cpuModel"] == "qemu64"
    assert lab.verbs(with_model(replace(vm, spec={**vm.spec, "restart": "always"}))) == [Verb.NOOP]


@pytest.mark.parametrize("again", ["start", "apply"])
def test_it_comes_true_with_the_next_start_whoever_stopped_it(lab: Lab, again: str) -> None:
    vm = lab.idle()
    lab.converge(vm)
    lab.apply(held_back(vm))
    lab.backend.power(vm.id, "stop", True, 5, lambda _: None)
    assert waiting(lab) == "cpuModel"
    if again == "start":
        lab.backend.power(vm.id, "start", False, 5, lambda _: None)
    else:
        lab.converge(with_model(vm))
    assert waiting(lab) is None
    assert lab.look().spec["cpuModel"] == "qemu64"


def test_it_is_forgotten_when_it_is_no_longer_wanted(lab: Lab) -> None:
    vm = lab.idle()
    lab.converge(vm)
    lab.apply(held_back(vm))
    lab.converge(vm)
    assert waiting(lab) is None
