"""An ephemeral container goes when it is stopped for good, and survives every restart of ours."""

from __future__ import annotations

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Effect, ResourceId, Verb
from reconciler.problems import Refused
from tests.support.lxd import Lab, crash_at


def test_a_restart_change_keeps_it(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, ephemeral=True))
    lab.inside(name, "touch", "/kept")
    outcomes = lab.converge(lab.container(name, ephemeral=True, nesting=True))
    assert outcomes[0].step.verb is Verb.RESTART
    lab.inside(name, "test", "-e", "/kept")
    assert lab.raw("instances", name)["ephemeral"] is True


def test_a_rename_keeps_it(lab: Lab) -> None:
    old, new = lab.lxd.name(), lab.lxd.name()
    lab.converge(lab.container(old, ephemeral=True))
    lab.inside(old, "touch", "/kept")
    spec = lab.container(new, ephemeral=True).spec
    lab.converge(lab.desired("Container", new, spec, renamed_from=old))
    lab.inside(new, "test", "-e", "/kept")
    assert lab.raw("instances", new)["ephemeral"] is True


def test_a_crash_anywhere_in_its_restart_keeps_it(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, ephemeral=True))
    lab.inside(name, "touch", "/kept")
    nesting, write, died = False, 0, ["so far"]
    while died:
        write += 1
        nesting = not nesting
        want = lab.container(name, ephemeral=True, nesting=nesting)
        with crash_at(lab.client, write, replied=True) as died:
            lab.apply(want)
        lab.converge(want)
        lab.inside(name, "test", "-e", "/kept")
        assert lab.raw("instances", name)["ephemeral"] is True
    assert write > 4


def test_taken_out_together_with_a_restart_change(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, ephemeral=True))
    lab.inside(name, "touch", "/kept")
    lab.converge(lab.container(name, nesting=True))
    lab.inside(name, "test", "-e", "/kept")
    assert lab.raw("instances", name)["ephemeral"] is False


def test_made_ephemeral_and_back_while_it_runs(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    began = lab.init_start(name)
    for ephemeral in (True, False):
        outcomes = lab.converge(lab.container(name, ephemeral=ephemeral))
        assert outcomes[0].step.effect is Effect.LIVE
        assert lab.raw("instances", name)["ephemeral"] is ephemeral
    assert lab.init_start(name) == began


def test_the_verbs_restart_and_stop(lab: Lab) -> None:
    name = lab.lxd.name()
    want = lab.container(name, ephemeral=True)
    lab.converge(want)
    lab.inside(name, "touch", "/kept")
    began = lab.init_start(name)
    lab.backend.power(want.id, "restart", False, 60.0, lab.told.append)
    assert lab.init_start(name) != began
    lab.inside(name, "test", "-e", "/kept")
    assert lab.raw("instances", name)["ephemeral"] is True
    with pytest.raises(Refused, match="stopping deletes it"):
        lab.backend.power(want.id, "stop", False, 60.0, lab.told.append)
    lab.inside(name, "test", "-e", "/kept")
    lab.backend.power(want.id, "stop", True, 10.0, lab.told.append)
    assert lab.client.find("instances", name) is None


def test_power_stopped_does_not_delete_what_somebody_made_ephemeral(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    lab.client.patch(("instances", name), {"ephemeral": True}, Deadline.after(60))
    outcomes = lab.apply(lab.container(name, power="stopped"))
    assert "stopping deletes it" in str(outcomes[0].problem)
    assert ResourceId("Container", name) in lab.look().resources


def test_taken_out_together_with_power_stopped(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, ephemeral=True))
    lab.converge(lab.container(name, power="stopped"))
    assert lab.raw("instances", name)["status"] == "Stopped"
