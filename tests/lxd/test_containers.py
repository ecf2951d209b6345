"""Container: made, changed, restarted, replaced and deleted on a real LXD, and left alone when nothing is to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Effect, Outcome, Power, ResourceId, Result, Verb
from tests.support.lxd import Lab

MIB = 1 << 20


def verbs(outcomes: list[Outcome]) -> list[Verb]:
    return [outcome.step.verb for outcome in outcomes]


def test_a_created_container_is_as_wanted_and_stays_so(lab: Lab) -> None:
    name = lab.lxd.name()
    want = lab.container(
        name,
        cpus={"count": 1},
        memory={"size": 64 * MIB},
        nesting=False,
        privileged=False,
        config={"boot.autostart": "false", "user.note": "hello"},
        devices={"root": {"type": "disk", "path": "/", "pool": "default"}},
    )
    outcomes = lab.converge(want)
    assert verbs(outcomes) == [Verb.CREATE]
    seen = lab.look().resources[want.id]
    assert seen.power is Power.RUNNING and seen.owned and seen.applied == want.spec and seen.pending is None
    raw = lab.raw("instances", name)["config"]
    assert raw["limits.cpu"] == "1" and raw["limits.memory"] == "64MiB" and raw["security.nesting"] == "false"


def test_the_second_apply_writes_nothing(lab: Lab) -> None:
    want = lab.container(lab.lxd.name())
    lab.converge(want)
    before = lab.client.get("instances", want.id.name).etag
    assert verbs(lab.apply(want)) == [Verb.NOOP]
    assert lab.client.get("instances", want.id.name).etag == before


def test_limits_change_live_and_the_kernel_agrees(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, cpus={"count": 2}, memory={"size": 64 * MIB}))
    began = lab.init_start(name)
    outcomes = lab.converge(lab.container(name, cpus={"count": 1}, memory={"size": 96 * MIB}))
    assert verbs(outcomes) == [Verb.UPDATE] and outcomes[0].step.effect is Effect.LIVE
    assert lab.init_start(name) == began
    group = Path("/sys/fs/cgroup")
    assert (group / f"memory/lxc.payload.{name}/memory.limit_in_bytes").read_text().strip() == str(96 * MIB)
    assert (group / f"cpuset/lxc.payload.{name}/cpuset.cpus").read_text().strip() in ("0", "1")


def test_less_memory_than_is_in_use_says_what_to_do(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, memory={"size": 64 * MIB}))
    began = lab.init_start(name)
    lab.inside(name, "sh", "-c", "mkdir -p /full && mount -t tmpfs full /full && head -c 32m /dev/zero >/full/x")
    [outcome] = lab.apply(lab.container(name, memory={"size": 8 * MIB}))
    assert "the kernel ends what takes most" in outcome.step.changes[0].note
    problem = outcome.problem
    assert problem is not None and problem.summary.startswith("memory.size: it uses more than that")
    assert problem.hint and lab.init_start(name) == began
    lab.inside(name, "umount", "/full")
    lab.converge(lab.container(name, memory={"size": 32 * MIB}))


def test_one_that_is_killed_for_lack_of_memory_has_last_words(lab: Lab) -> None:
    want = lab.container(lab.lxd.name(), memory={"size": MIB})
    problem = lab.apply(want)[0].problem
    assert problem is not None  # it may be killed before LXD has told of its start, or right behind that
    started = "it went down" in problem.summary
    assert started or problem.summary == "it does not start"
    assert problem.detail and ("lxc.log:" if started else "spawn container") in problem.detail
    assert problem.hint and "memory: 1MiB is hardly enough" in problem.hint


def test_what_acts_at_the_next_start_restarts(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    began = lab.init_start(name)
    outcomes = lab.converge(lab.container(name, config={"limits.kernel.nofile": "777"}))
    assert verbs(outcomes) == [Verb.RESTART]
    assert lab.init_start(name) != began
    assert lab.inside(name, "sh", "-c", "ulimit -n").strip() == "777"


def test_a_field_no_longer_mentioned_is_taken_back_and_others_are_left_alone(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, config={"user.a": "1", "user.b": "1"}, memory={"size": 64 * MIB}))
    lab.client.patch(("instances", name), {"config": {"user.stranger": "mine"}}, Deadline.after(60))
    lab.converge(lab.container(name, config={"user.a": "1"}))
    config = lab.raw("instances", name)["config"]
    assert "user.b" not in config and "limits.memory" not in config
    assert config["user.a"] == "1" and config["user.stranger"] == "mine"


def test_drift_is_seen_and_mended(lab: Lab) -> None:
    name = lab.lxd.name()
    want = lab.container(name, config={"user.a": "1"})
    lab.converge(want)
    lab.client.patch(("instances", name), {"config": {"user.a": "2"}}, Deadline.after(60))
    plan, _ = lab.plan(want)
    assert [change.field for change in plan.steps[0].changes] == ["config.user.a"]
    lab.converge(want)
    assert lab.raw("instances", name)["config"]["user.a"] == "1"


@pytest.mark.parametrize(
    "sequence",
    [
        ["stopped", "running", "stopped"],
        ["running", "paused", "running"],
        ["paused", "stopped"],
        ["stopped", "paused"],
    ],
)
def test_power_follows_the_manifest(lab: Lab, sequence: list[str]) -> None:
    name = lab.lxd.name()
    for power in sequence:
        lab.converge(lab.container(name, power=power))
        assert lab.look().resources[ResourceId("Container", name)].power == power


def test_one_that_has_ended_is_started_after_a_single_reading(lab: Lab) -> None:
    want = lab.container(lab.lxd.name())
    lab.converge(want)
    lab.client.put(("instances", want.id.name, "state"), {"action": "stop", "force": True}, Deadline.after(60))
    (step,), seen = lab.plan(want)[0].steps, lab.look().resources[want.id]
    before = lab.client.requests
    lab.backend.apply(step, want, seen, lab.told.append)
    assert lab.client.requests - before == 4, "read, started, waited for, seen to run"
    assert lab.look().resources[want.id].power is Power.RUNNING


def test_a_stopped_container_takes_changes_without_starting(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, power="stopped"))
    outcomes = lab.converge(lab.container(name, power="stopped", privileged=False, config={"raw.lxc": "# nothing"}))
    assert verbs(outcomes) == [Verb.UPDATE] and outcomes[0].step.effect is Effect.LIVE


def test_nothing_comes_up_with_the_host_unless_the_container_or_a_profile_of_it_says_so(lab: Lab) -> None:
    plain, asked, profile = lab.lxd.name(), lab.lxd.name(), lab.lxd.name("p")
    wanted = lab.desired("Profile", profile, {"config": {"boot.autostart": "true"}})
    of_it = lab.container(asked, profiles=["default", profile], needs=[wanted.id])
    lab.converge(wanted, lab.container(plain), of_it)
    said = {name: lab.raw("instances", name)["expanded_config"]["boot.autostart"] for name in (plain, asked)}
    assert said == {plain: "false", asked: "true"}


def test_going_down_takes_restart_changes_along(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    outcomes = lab.converge(lab.container(name, power="stopped", config={"limits.kernel.nofile": "99"}))
    assert verbs(outcomes) == [Verb.UPDATE] and outcomes[0].step.effect is Effect.STOP


def test_a_renamed_container_keeps_its_disk(lab: Lab) -> None:
    old, new = lab.lxd.name("old"), lab.lxd.name("new")
    lab.converge(lab.container(old))
    lab.inside(old, "touch", "/kept")
    again = lab.container(new)
    renamed = lab.desired("Container", new, again.spec, renamed_from=old)
    assert verbs(lab.converge(renamed)) == [Verb.RESTART]
    assert lab.inside(new, "ls", "/kept").strip() == "/kept"
    assert ResourceId("Container", old) not in lab.look().resources


def test_a_followed_image_replaces_and_volumes_survive(lab: Lab) -> None:
    name, volume = lab.lxd.name(), lab.lxd.name("v")
    device = {"type": "disk", "pool": "default", "source": volume, "path": "/data"}
    data = lab.desired("Volume", volume, {"pool": "default", "deletionPolicy": "retain"})
    first = lab.container(name, needs=[data.id], devices={f"volume-{volume}": device}, imagePolicy="follow")
    lab.converge(data, first)
    lab.inside(name, "sh", "-c", "echo precious > /data/file; touch /gone")
    old = lab.raw("instances", name)["config"]["user.reconciler.image"]
    # the guest says it was made from another image than the declared one
    mark = old.replace("b" * 64, "c" * 64)
    lab.client.patch(("instances", name), {"config": {"user.reconciler.image": mark}}, Deadline.after(60))
    outcomes = lab.converge(data, first)
    assert Verb.REPLACE in verbs(outcomes)
    assert lab.inside(name, "cat", "/data/file").strip() == "precious"
    assert "gone" not in lab.inside(name, "ls", "/")


def test_devices_come_change_and_go(lab: Lab) -> None:
    name, volume = lab.lxd.name(), lab.lxd.name("v")
    data = lab.desired("Volume", volume, {"pool": "default"})
    device = {"type": "disk", "pool": "default", "source": volume, "path": "/data"}
    lab.converge(data, lab.container(name))
    lab.converge(data, lab.container(name, needs=[data.id], devices={"volume-x": device}))
    assert "/data" in lab.inside(name, "cat", "/proc/mounts")
    lab.converge(data, lab.container(name, needs=[data.id], devices={"volume-x": {**device, "path": "/elsewhere"}}))
    assert "/elsewhere" in lab.inside(name, "cat", "/proc/mounts")
    lab.converge(data, lab.container(name))
    assert "/elsewhere" not in lab.inside(name, "cat", "/proc/mounts")


def test_deleted_by_prune_and_only_what_is_ours(lab: Lab) -> None:
    ours, stranger = lab.lxd.name(), lab.lxd.name("s")
    lab.converge(lab.container(ours))
    body = {"name": stranger, "source": {"type": "none"}}
    lab.client.post(("instances",), body, Deadline.after(60))
    keep = lab.container(lab.lxd.name("k"), power="stopped")
    image = lab.look().resources[ResourceId("Image", "busybox")]
    assert image.applied is not None
    of_it = lab.desired("Image", "busybox", image.applied)
    lab.converge(replace(keep, needs=(of_it.id,)), of_it, prune=True)
    left = {id.name for id in lab.look().resources if id.kind == "Container"}
    assert left == {stranger, keep.id.name}


def test_a_copy_made_by_hand_is_not_ours(lab: Lab) -> None:
    name, copy = lab.lxd.name(), lab.lxd.name("copy")
    lab.converge(lab.container(name, power="stopped"))
    body = {"name": copy, "source": {"type": "copy", "source": name}, "profiles": ["default"]}
    lab.client.post(("instances",), body, Deadline.after(30))
    assert lab.raw("instances", copy)["config"]["user.reconciler.environment"]
    assert not lab.look().resources[ResourceId("Container", copy)].owned


def test_what_is_not_ours_is_held_until_adopted(lab: Lab) -> None:
    name = lab.lxd.name()
    fingerprint = lab.raw("images", "aliases", "busybox")["target"]
    body = {"name": name, "source": {"type": "image", "fingerprint": fingerprint}, "config": {"user.theirs": "1"}}
    lab.client.post(("instances",), body, Deadline.after(60))
    want = lab.container(name, config={"user.ours": "1"})
    assert [outcome.result for outcome in lab.apply(want)] == [Result.HELD]
    lab.converge(want, adopt=True)
    config = lab.raw("instances", name)["config"]
    assert config["user.theirs"] == "1" and config["user.ours"] == "1"
    assert lab.look().resources[want.id].owned


def test_a_protected_container_is_not_even_stopped(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, config={"security.protection.delete": "true"}))
    began = lab.init_start(name)
    keep = lab.desired("Image", "busybox", lab.look().resources[ResourceId("Image", "busybox")].applied or {})
    outcomes = lab.apply(keep, prune=True)
    failed = [outcome for outcome in outcomes if outcome.result is Result.FAILED]
    assert len(failed) == 1 and failed[0].problem and "protection.delete" in failed[0].problem.summary
    assert lab.init_start(name) == began


def test_an_init_that_ignores_the_request_is_stopped_by_force(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.backends.lxd.apply.power.GRACE", 1.0)
    name = lab.lxd.name()
    lab.converge(lab.container(name, config={"raw.lxc": "lxc.signal.halt = SIGWINCH"}))
    lab.backend.power(ResourceId("Container", name), "stop", False, 1.0, lab.told.append)
    assert "did not stop within 1 s: stopping by force" in lab.told
    assert lab.look().resources[ResourceId("Container", name)].power is Power.STOPPED


def test_ephemeral_ones_go_with_their_stop(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, ephemeral=True))
    lab.converge(
        lab.desired("Image", "busybox", lab.look().resources[ResourceId("Image", "busybox")].applied or {}), prune=True
    )
    assert ResourceId("Container", name) not in lab.look().resources


@contextmanager
def edited_before_the_write(lab: Lab, name: str, **config: str) -> Iterator[None]:
    """Somebody else is quicker: between our reading and our writing, once."""
    real, done = lab.client.put, list[object]()

    def put(path: tuple[str, ...], *rest: Any, **more: Any) -> Any:
        if path == ("instances", name) and not done:
            done.append(path)
            lab.client.patch(path, {"config": config}, Deadline.after(60))
        return real(path, *rest, **more)

    lab.client.put = put  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        lab.client.put = real  # type: ignore[method-assign]
    assert done


def test_an_edit_of_something_else_between_read_and_write_is_kept(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, power="stopped", config={"user.a": "1"}))
    with edited_before_the_write(lab, name, **{"user.stranger": "mine"}):
        lab.converge(lab.container(name, power="stopped", config={"user.a": "2"}))
    config = lab.raw("instances", name)["config"]
    assert (config["user.a"], config["user.stranger"]) == ("2", "mine")


def test_an_edit_of_the_same_between_read_and_write_is_not_overwritten(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, power="stopped", config={"user.a": "1"}))
    with edited_before_the_write(lab, name, **{"user.a": "theirs"}):
        outcomes = lab.apply(lab.container(name, power="stopped", config={"user.a": "2"}))
    assert outcomes[0].result is Result.FAILED and "changed by somebody else" in str(outcomes[0].problem)
    assert lab.raw("instances", name)["config"]["user.a"] == "theirs"


def test_ignored_fields_are_left_even_when_finishing(lab: Lab) -> None:
    name = lab.lxd.name()
    want = lab.container(name, power="stopped", config={"user.a": "1", "user.b": "1"}, ignore=["config.user.a"])
    lab.converge(want)
    edit = {"user.a": "theirs", "user.b": "theirs", "user.reconciler.pending": "create"}
    lab.client.patch(("instances", name), {"config": edit}, Deadline.after(60))
    lab.converge(want)
    config = lab.raw("instances", name)["config"]
    assert (config["user.a"], config["user.b"]) == ("theirs", "1")


def test_a_host_is_there_when_it_answers(lab: Lab) -> None:
    host = ResourceId("Host", "local")
    before = lab.client.requests
    seen = lab.backend.observe({host}).resources[host]
    assert seen.owned and seen.applied == seen.spec == {
        "lxd": {"socket": str(lab.lxd.socket)},
        "deletionPolicy": "delete",
    }
    assert lab.client.requests - before == 1
