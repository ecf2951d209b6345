"""Volume: attached to running containers and taken away again, shared by several, grown; its data stays."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Desired, Effect, ResourceId, Result, Verb
from reconciler.problems import Refused
from tests.support.lxd import Lab

MIB = 1 << 20


def volume(lab: Lab, name: str, **spec: Any) -> Desired:
    return lab.desired("Volume", name, {"pool": "default", **spec})


def user(lab: Lab, name: str, used: str | None, path: str = "/data", **more: Any) -> Desired:
    """A container that has the volume, or has it no more."""
    device = {"type": "disk", "pool": "default", "source": used or "", "path": path}
    needs = [ResourceId("Volume", used)] if used else []
    return lab.container(name, needs=needs, devices={"volume-data": device} if used else {}, **more)


def test_it_comes_and_goes_and_its_data_stays(lab: Lab) -> None:
    data, name = lab.lxd.name("v"), lab.lxd.name()
    lab.converge(volume(lab, data), user(lab, name, None))
    began = lab.init_start(name)
    outcomes = lab.converge(volume(lab, data), user(lab, name, data))
    assert [one.step.effect for one in outcomes if one.step.verb is Verb.UPDATE] == [Effect.LIVE]
    lab.inside(name, "sh", "-c", "echo precious > /data/file")
    lab.converge(volume(lab, data), user(lab, name, None))
    assert "/data" not in lab.inside(name, "cat", "/proc/mounts")
    lab.converge(volume(lab, data), user(lab, name, data, "/elsewhere"))
    assert lab.inside(name, "cat", "/elsewhere/file") == "precious\n"
    assert lab.init_start(name) == began


def test_one_that_appears_after_the_look_is_finished_or_left_alone(lab: Lab) -> None:
    """It is made without a further look: LXD says when there is one already."""
    data, theirs = lab.lxd.name("v"), lab.lxd.name("v")
    for name in (data, theirs):
        plan, _ = lab.plan(volume(lab, name, size=20 * MIB))
        (step,) = [one for one in plan.steps if one.verb is Verb.CREATE]
        if name == data:
            lab.converge(volume(lab, name, size=10 * MIB))
            lab.backend.apply(step, volume(lab, name, size=20 * MIB), None, lab.told.append)
            assert lab.raw("storage-pools", "default", "volumes", "custom", name)["config"]["size"] == "20MiB"
        else:
            lab.client.post(("storage-pools", "default", "volumes", "custom"), {"name": name}, Deadline.after(60))
            with pytest.raises(Refused, match="it is not ours"):
                lab.backend.apply(step, volume(lab, name, size=20 * MIB), None, lab.told.append)
    lab.client.delete(("storage-pools", "default", "volumes", "custom", theirs), Deadline.after(60))


def test_several_write_to_it(lab: Lab) -> None:
    data, first, second = lab.lxd.name("v"), lab.lxd.name(), lab.lxd.name()
    lab.converge(volume(lab, data), user(lab, first, data), user(lab, second, data))
    lab.inside(first, "sh", "-c", "echo one >> /data/log")
    lab.inside(second, "sh", "-c", "echo two >> /data/log")
    assert lab.inside(first, "cat", "/data/log") == lab.inside(second, "cat", "/data/log") == "one\ntwo\n"
    lab.converge(volume(lab, data), user(lab, first, None), user(lab, second, data))
    assert lab.inside(second, "cat", "/data/log") == "one\ntwo\n"


def test_one_whose_owners_are_others_is_refused_by_name(lab: Lab) -> None:
    data, first, second = lab.lxd.name("v"), lab.lxd.name(), lab.lxd.name()
    apart: dict[str, Any] = {"config": {"security.idmap.isolated": "true"}}
    lab.converge(volume(lab, data), user(lab, first, data), user(lab, second, None, **apart))
    lab.inside(first, "touch", "/data/file")
    outcomes = lab.apply(volume(lab, data), user(lab, first, data), user(lab, second, data, **apart))
    failed = [one for one in outcomes if one.result is Result.FAILED]
    assert [one.step.id.name for one in failed] == [second] and "volume-data" in str(failed[0].problem)
    assert lab.inside(first, "ls", "/data") == "file\n"
    lab.converge(volume(lab, data), user(lab, first, data), user(lab, second, None, **apart))


def test_it_grows_under_its_user_and_never_shrinks(lab: Lab) -> None:
    data, name = lab.lxd.name("v"), lab.lxd.name()
    lab.converge(volume(lab, data, size=10 * MIB), user(lab, name, data))
    began = lab.init_start(name)
    lab.converge(volume(lab, data, size=20 * MIB), user(lab, name, data))
    assert lab.raw("storage-pools", "default", "volumes", "custom", data)["config"]["size"] == "20MiB"
    outcomes = lab.apply(volume(lab, data, size=5 * MIB), user(lab, name, data))
    held = next(one for one in outcomes if one.step.id.kind == "Volume")
    assert held.result is Result.HELD and "cannot shrink" in str(held.problem)
    assert lab.init_start(name) == began


def test_one_whose_mount_is_gone_is_plugged_in_again(lab: Lab) -> None:
    data, name = lab.lxd.name("v"), lab.lxd.name()
    lab.converge(volume(lab, data), user(lab, name, data))
    began = lab.init_start(name)
    lab.inside(name, "sh", "-c", "echo precious > /data/file; umount /data")
    lab.converge(volume(lab, data), user(lab, name, data))
    assert lab.inside(name, "cat", "/data/file") == "precious\n" and lab.init_start(name) == began
