"""updatePolicy on a container: what would restart it waits, is told, and comes true at its next start."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.model import Effect, ResourceId, Result, Verb
from tests.support.lxd import Lab

CEILING = {"limits.kernel.nofile": "777"}


def conditions(lab: Lab, name: str) -> dict[str, str]:
    found = lab.look().resources[ResourceId("Container", name)].conditions
    return {one.type: one.message for one in found}


def files_allowed(lab: Lab, name: str) -> str:
    return lab.inside(name, "sh", "-c", "ulimit -n").strip()


def waiting(lab: Lab, **more: Any) -> tuple[str, str]:
    """A container that runs, with a change that waits and one that did not have to."""
    name = lab.lxd.name()
    lab.converge(lab.container(name, updatePolicy="live", **more))
    began = lab.init_start(name)
    config = {**CEILING, "limits.processes": "60"}
    outcomes = lab.apply(lab.container(name, updatePolicy="live", config=config, **more))
    step = outcomes[0].step
    assert outcomes[0].result is Result.APPLIED and step.verb is Verb.UPDATE and step.effect is Effect.LIVE
    assert [one.field for one in step.waiting] == ["config.limits.kernel.nofile"]
    assert lab.init_start(name) == began
    return name, began


def test_what_waits_is_told_and_the_rest_is_done(lab: Lab) -> None:
    name, began = waiting(lab)
    config = lab.raw("instances", name)["config"]
    assert config["limits.processes"] == "60" and "limits.kernel.nofile" not in config
    assert conditions(lab, name) == {"RestartPending": "config.limits.kernel.nofile"}
    again, _ = lab.plan(lab.container(name, updatePolicy="live", config={**CEILING, "limits.processes": "60"}))
    assert again.steps[0].verb is Verb.NOOP and again.steps[0].waiting
    assert lab.init_start(name) == began


@pytest.mark.parametrize("force", [True, False])
def test_a_restart_from_the_command_line_takes_it(lab: Lab, force: bool) -> None:
    name, began = waiting(lab)
    lab.backend.power(ResourceId("Container", name), "restart", force, 10, lab.told.append)
    assert files_allowed(lab, name) == "777" and lab.init_start(name) != began
    assert conditions(lab, name) == {}
    want = lab.container(name, updatePolicy="live", config={**CEILING, "limits.processes": "60"})
    assert [one.step.verb for one in lab.converge(want)] == [Verb.NOOP]


def test_a_stop_and_a_start_take_it(lab: Lab) -> None:
    name, _ = waiting(lab)
    id = ResourceId("Container", name)
    lab.backend.power(id, "start", True, 10, lab.told.append)  # it runs already: nothing comes of it
    lab.backend.power(id, "stop", True, 10, lab.told.append)
    assert conditions(lab, name)
    lab.backend.power(id, "start", True, 10, lab.told.append)
    assert files_allowed(lab, name) == "777" and conditions(lab, name) == {}


def test_who_starts_it_by_hand_has_the_commands_of_each_start_run(lab: Lab) -> None:
    name = lab.lxd.name()
    id = ResourceId("Container", name)
    each = {"command": ["sh", "-c", "echo started >>/starts"], "when": "start", "timeout": 30.0}
    once = {"command": ["sh", "-c", "echo created >>/starts"], "when": "create", "timeout": 30.0}
    want = lab.container(name, run=[once, each])
    lab.converge(want)
    lab.backend.power(id, "restart", True, 10, lab.told.append)
    lab.backend.power(id, "stop", True, 10, lab.told.append)
    lab.backend.power(id, "start", True, 10, lab.told.append)
    lab.backend.power(id, "start", True, 10, lab.told.append)  # it runs already: nothing comes of it
    assert lab.inside(name, "cat", "/starts").split() == ["created", "started", "started", "started"]
    assert [one.step.verb for one in lab.converge(want)] == [Verb.NOOP]


def test_an_ephemeral_one_survives_taking_it(lab: Lab) -> None:
    name, _ = waiting(lab, ephemeral=True)
    lab.backend.power(ResourceId("Container", name), "restart", True, 10, lab.told.append)
    assert files_allowed(lab, name) == "777" and lab.raw("instances", name)["ephemeral"]


def test_what_waits_goes_when_the_manifest_takes_it_back(lab: Lab) -> None:
    name, began = waiting(lab)
    lab.converge(lab.container(name, updatePolicy="live", config={"limits.processes": "60"}))
    assert conditions(lab, name) == {} and lab.init_start(name) == began
    assert "user.reconciler.later" not in lab.raw("instances", name)["config"]


def test_an_apply_that_is_allowed_to_restart_takes_it(lab: Lab) -> None:
    name, began = waiting(lab)
    lab.converge(lab.container(name, updatePolicy="restart", config={**CEILING, "limits.processes": "60"}))
    assert files_allowed(lab, name) == "777" and lab.init_start(name) != began
    assert conditions(lab, name) == {}
