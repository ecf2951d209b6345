"""Image, Network, Profile, StoragePool, Project and Volume on a real LXD."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Desired, Effect, Observed, ResourceId, Result, Step, Verb
from reconciler.ports import Settings
from reconciler.problems import Refused
from tests.support.lxd import IDENTITY, Lab

ONE_REQUEST = 20.0


def seen(lab: Lab, want: Desired) -> Observed:
    return lab.look().resources[want.id]


def put(lab: Lab, *path: str, **config: str) -> None:
    """A third party's edit."""
    lab.client.patch(path, {"config": config}, Deadline.after(ONE_REQUEST))


# Image ----------------------------------------------------------------------------------------------------------


def image(lab: Lab, name: str, identity: str = IDENTITY, **build: object) -> Desired:
    source = {"build": {"recipe": "busybox", **build}}
    return lab.desired("Image", name, {"type": "container", "source": source, "identity": identity})


def test_a_refused_restart_leaves_the_guest_up(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    outcomes = lab.apply(lab.container(name, config={"raw.idmap": "both nobody nowhere"}))
    assert outcomes[0].step.verb is Verb.RESTART and outcomes[0].result is Result.FAILED
    assert "ID map" in str(outcomes[0].problem)
    assert seen(lab, lab.container(name)).power == "running"
    lab.converge(lab.container(name))


def test_an_image_that_the_server_has_only_gets_our_alias(lab: Lab) -> None:
    name = lab.lxd.name("i")
    lab.converge(image(lab, name))
    assert "uploading" not in lab.told
    assert len(lab.client.get("images").metadata) == 1
    lab.converge(image(lab, "busybox"), prune=True)  # ours is pruned, the image stays for the other alias
    assert [one["name"] for one in lab.client.get("images", "aliases", recursion="1").metadata] == ["busybox"]
    assert len(lab.client.get("images").metadata) == 1


def test_a_changed_image_moves_the_alias_and_the_old_one_goes(lab: Lab) -> None:
    name = lab.lxd.name("i")
    files = [{"path": "/etc/note", "content": "one", "mode": "0644"}]
    lab.converge(image(lab, name, "1" * 64, files=files))
    first = lab.raw("images", "aliases", name)["target"]
    outcomes = lab.converge(image(lab, name, "2" * 64, files=[{**files[0], "content": "two"}]))
    assert outcomes[0].step.verb is Verb.UPDATE
    second = lab.raw("images", "aliases", name)["target"]
    assert first != second and lab.client.find("images", first) is None
    lab.converge(image(lab, "busybox"), prune=True)
    assert lab.client.find("images", second) is None


def test_a_half_made_image_is_finished(lab: Lab) -> None:
    name = lab.lxd.name("i")
    want = image(lab, name, "1" * 64, files=[{"path": "/etc/note", "content": name, "mode": "0644"}])
    from tests.support.lxd import crash_at

    for write in (2, 1):
        with crash_at(lab.client, write, replied=write == 1):
            lab.apply(want)
    lab.converge(want)


def test_an_alias_that_is_not_ours_is_held_and_can_be_adopted(lab: Lab) -> None:
    name = lab.lxd.name("i")
    target = lab.raw("images", "aliases", "busybox")["target"]
    body = {"name": name, "target": target, "description": "somebody's"}
    lab.client.post(("images", "aliases"), body, Deadline.after(ONE_REQUEST))
    assert [one.result for one in lab.apply(image(lab, name))] == [Result.HELD]
    assert lab.raw("images", "aliases", name)["description"] == "somebody's"
    lab.converge(image(lab, name), adopt=True)
    assert seen(lab, image(lab, name)).owned


def test_a_container_waits_for_the_declared_image(lab: Lab) -> None:
    want = lab.container(lab.lxd.name(), image={"name": "busybox", "identity": "9" * 64})
    outcomes = lab.apply(want)
    assert outcomes[0].result is Result.FAILED and "not the declared one" in str(outcomes[0].problem)


def test_a_split_image_is_sent_in_two_parts(lab: Lab, tmp_path: Path) -> None:
    import subprocess

    metadata, root = tmp_path / "meta", tmp_path / "root"
    metadata.mkdir()
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "true").write_bytes(Path("/bin/busybox").read_bytes())
    (metadata / "metadata.yaml").write_text("architecture: x86_64\ncreation_date: 1\n")
    subprocess.run(["tar", "-C", metadata, "-czf", tmp_path / "meta.tar.gz", "metadata.yaml"], check=True)
    subprocess.run(["tar", "-C", root, "-cJf", tmp_path / "root.tar.xz", "."], check=True)
    source = {"file": str(tmp_path / "meta.tar.gz"), "rootfs": str(tmp_path / "root.tar.xz"), "stamp": "1"}
    name = lab.lxd.name("i")
    want = lab.desired("Image", name, {"type": "container", "source": source, "identity": "5" * 64})
    lab.converge(want)
    lab.converge(lab.container(lab.lxd.name(), power="stopped", image={"name": name, "identity": "5" * 64}))


# Network --------------------------------------------------------------------------------------------------------


def network(lab: Lab, name: str, address: str | None = None, **spec: object) -> Desired:
    ipv4 = {"address": address or f"{lab.net}.7.1/24", "nat": False}
    return lab.desired("Network", name, {"type": "bridge", "ipv4": ipv4, "ipv6": {"address": "none"}, **spec})


def nic(network: str, **more: str) -> dict[str, dict[str, str]]:
    return {"eth0": {"type": "nic", "network": network, "name": "eth0", **more}}


def test_a_network_with_a_container_on_it(lab: Lab) -> None:
    bridge, name = lab.lxd.name("b"), lab.lxd.name()
    lab.converge(
        network(lab, bridge, dns={"domain": "test.lan"}),
        lab.container(
            name, needs=[ResourceId("Network", bridge)], devices=nic(bridge), ready={"ip": True, "timeout": 120}
        ),
    )
    assert Path(f"/sys/class/net/{bridge}").exists()
    conditions = {one.type: one for one in lab.backend.probe(seen(lab, lab.container(name)))}
    assert conditions["Ip"].status and conditions["Ip"].message.startswith(f"{lab.net}.7.")
    outcomes = lab.apply(lab.desired("Image", "busybox", seen(lab, image(lab, "busybox")).applied or {}), prune=True)
    assert {one.result for one in outcomes} == {Result.APPLIED, Result.UNCHANGED}
    assert not Path(f"/sys/class/net/{bridge}").exists()


def test_a_port_is_seen_from_outside(lab: Lab) -> None:
    bridge, name = lab.lxd.name("b"), lab.lxd.name()
    run = [{"command": ["sh", "-c", "nc -ll -p 8099 -e true >/dev/null 2>&1 &"], "when": "start", "timeout": 60}]
    ready = {"ip": True, "tcp": 8099, "timeout": 120}
    lab.converge(
        network(lab, bridge),
        lab.container(name, needs=[ResourceId("Network", bridge)], devices=nic(bridge), ready=ready, run=run),
    )
    conditions = {one.type: one for one in lab.backend.probe(seen(lab, lab.container(name)))}
    assert conditions["Tcp"].reason == "Answers"


def test_networks_change_live(lab: Lab) -> None:
    bridge = lab.lxd.name("b")
    lab.converge(network(lab, bridge))
    outcomes = lab.converge(network(lab, bridge, f"{lab.net}.8.1/24", config={"ipv4.dhcp.expiry": "2h"}))
    assert outcomes[0].step.verb is Verb.UPDATE
    assert lab.raw("networks", bridge)["config"]["ipv4.address"] == f"{lab.net}.8.1/24"
    put(lab, "networks", bridge, **{"user.stranger": "1"})
    lab.converge(network(lab, bridge, f"{lab.net}.8.1/24"))
    config = lab.raw("networks", bridge)["config"]
    assert "ipv4.dhcp.expiry" not in config and config["user.stranger"] == "1"


def test_an_address_that_lxd_chose_is_no_drift(lab: Lab) -> None:
    bridge = lab.lxd.name("b")
    want = lab.desired("Network", bridge, {"type": "bridge", "ipv6": {"address": "auto"}, "ipv4": {"address": "none"}})
    lab.converge(want)
    assert lab.raw("networks", bridge)["config"]["ipv6.address"].startswith("fd42:")


def test_a_subnet_does_not_move_away_under_a_static_address(lab: Lab) -> None:
    bridge, name = lab.lxd.name("b"), lab.lxd.name()
    static = nic(bridge, **{"ipv4.address": f"{lab.net}.7.77"})
    lab.converge(network(lab, bridge), lab.container(name, needs=[ResourceId("Network", bridge)], devices=static))
    outcomes = lab.apply(network(lab, bridge, f"{lab.net}.9.1/24"))
    assert outcomes[0].result is Result.FAILED and f"{name} ({lab.net}.7.77)" in str(outcomes[0].problem)
    assert lab.raw("networks", bridge)["config"]["ipv4.address"] == f"{lab.net}.7.1/24"
    lab.converge(network(lab, bridge), lab.container(name, needs=[ResourceId("Network", bridge)], devices=static))


def on(lab: Lab, name: str, bridge: str, address: str | None, **more: Any) -> Desired:
    """A container with a static address on that bridge."""
    static = nic(bridge, **({"ipv4.address": address} if address else {}))
    return lab.container(name, needs=[ResourceId("Network", bridge)], devices=static, **more)


def test_a_network_moves_and_takes_its_containers_along(lab: Lab) -> None:
    bridge, first, second = lab.lxd.name("b"), lab.lxd.name(), lab.lxd.name()
    ready = {"ip": True, "timeout": 120}
    before = [on(lab, first, bridge, f"{lab.net}.81.77", ready=ready), on(lab, second, bridge, f"{lab.net}.81.78")]
    lab.converge(network(lab, bridge, f"{lab.net}.81.1/24"), *before)
    began = lab.init_start(first)
    after = [on(lab, first, bridge, f"{lab.net}.82.77", ready=ready), on(lab, second, bridge, None)]
    lab.converge(network(lab, bridge, f"{lab.net}.82.1/24"), *after)
    assert lab.init_start(first) == began
    wait_for(lab, first, f"{lab.net}.82.77/")
    wait_for(lab, second, f"{lab.net}.82.")


def wait_for(lab: Lab, name: str, address: str) -> None:
    deadline = Deadline.after(60)
    while address not in (said := lab.inside(name, "ip", "-4", "addr", "show", "eth0")):
        assert not deadline.passed, said + lab.inside(name, "sh", "-c", "ip addr; ps")
        time.sleep(0.2)


@pytest.mark.parametrize("whose", ["undeclared", "held", "still outside"])
def test_a_network_stays_when_a_container_on_it_would_be_stranded(lab: Lab, whose: str) -> None:
    bridge, name = lab.lxd.name("b"), lab.lxd.name()
    lab.converge(network(lab, bridge, f"{lab.net}.83.1/24"), on(lab, name, bridge, f"{lab.net}.83.77"))
    others = {
        "undeclared": [],
        "held": [on(lab, name, bridge, f"{lab.net}.84.77", config={"no.such.key": "1"})],
        "still outside": [on(lab, name, bridge, f"{lab.net}.83.77")],
    }
    outcomes = lab.apply(network(lab, bridge, f"{lab.net}.84.1/24"), *others[whose])
    failed = next(one for one in outcomes if one.step.id.kind == "Network")
    assert failed.result is Result.FAILED and f"{name} ({lab.net}.83.77)" in str(failed.problem)
    assert lab.raw("instances", name)["devices"]["eth0"]["ipv4.address"] == f"{lab.net}.83.77"
    lab.converge(network(lab, bridge, f"{lab.net}.83.1/24"), on(lab, name, bridge, f"{lab.net}.83.77"))


def test_a_network_that_cannot_move_leaves_the_cards_plugged_in(lab: Lab) -> None:
    bridge, name = lab.lxd.name("b"), lab.lxd.name()
    lab.converge(network(lab, bridge, f"{lab.net}.85.1/24"), on(lab, name, bridge, f"{lab.net}.85.77"))
    broken = network(lab, bridge, f"{lab.net}.86.1/24", config={"bridge.external_interfaces": "not/one"})
    outcomes = lab.apply(broken, on(lab, name, bridge, f"{lab.net}.86.77"))
    assert {one.step.id.kind: one.result for one in outcomes} == {"Network": Result.FAILED, "Container": Result.BLOCKED}
    lab.converge(network(lab, bridge, f"{lab.net}.85.1/24"), on(lab, name, bridge, f"{lab.net}.85.77"))
    wait_for(lab, name, f"{lab.net}.85.77/")


def test_an_interface_of_the_host_is_not_taken(lab: Lab) -> None:
    outcomes = lab.apply(network(lab, "lo"), adopt=True)
    assert outcomes[0].result is not Result.APPLIED


# Profile, pool, project, volume ----------------------------------------------------------------------------------


def test_a_profile_is_made_changed_and_used(lab: Lab) -> None:
    name, guest = lab.lxd.name("p"), lab.lxd.name()
    profile = lab.desired("Profile", name, {"config": {"limits.processes": "50"}, "description": "few"})
    lab.converge(profile, lab.container(guest, needs=[ResourceId("Profile", name)], profiles=["default", name]))
    assert lab.raw("instances", guest)["expanded_config"]["limits.processes"] == "50"
    began = lab.init_start(guest)
    changed = lab.desired("Profile", name, {"config": {"limits.processes": "60"}, "description": "few"})
    lab.converge(changed, lab.container(guest, needs=[ResourceId("Profile", name)], profiles=["default", name]))
    assert lab.init_start(guest) == began
    assert lab.raw("profiles", name)["config"]["limits.processes"] == "60"


def test_a_profile_restarts_nobody(lab: Lab) -> None:
    name, guest = lab.lxd.name("p"), lab.lxd.name()
    user = lab.container(guest, needs=[ResourceId("Profile", name)], profiles=["default", name])
    lab.converge(lab.desired("Profile", name, {}), user)
    began = lab.init_start(guest)
    zero = {"zero": {"type": "unix-char", "source": "/dev/zero", "path": "/dev/naught"}}
    outcomes = lab.converge(lab.desired("Profile", name, {"devices": zero}), user)
    assert next(one.step.effect for one in outcomes if one.step.id.kind == "Profile") is Effect.LIVE
    lab.inside(guest, "test", "-c", "/dev/naught")
    lab.converge(lab.desired("Profile", name, {"config": {"security.nesting": "true"}}), user)
    lab.inside(guest, "test", "!", "-e", "/dev/naught")
    assert lab.init_start(guest) == began


def test_no_field_of_a_profile_restarts(lab: Lab) -> None:
    assert not [field for field, rule in lab.backend.effects()["Profile"].items() if rule.effect is Effect.RESTART]


def test_what_a_profile_gives_is_set_on_the_object_when_stated(lab: Lab) -> None:
    name, guest = lab.lxd.name("p"), lab.lxd.name()
    profile = lab.desired("Profile", name, {"config": {"security.nesting": "true"}})
    lab.converge(
        profile,
        lab.container(
            guest, needs=[ResourceId("Profile", name)], power="stopped", profiles=["default", name], nesting=False
        ),
    )
    lab.client.patch(("instances", guest), {"config": {"security.nesting": ""}}, Deadline.after(ONE_REQUEST))
    assert lab.raw("instances", guest)["expanded_config"]["security.nesting"] == "true"
    lab.converge(
        profile,
        lab.container(
            guest, needs=[ResourceId("Profile", name)], power="stopped", profiles=["default", name], nesting=False
        ),
    )
    assert lab.raw("instances", guest)["config"]["security.nesting"] == "false"


def test_a_pool_of_its_own(lab: Lab, tmp_path: Path) -> None:
    name, volume = lab.lxd.name("s"), lab.lxd.name("v")
    pool = lab.desired("StoragePool", name, {"driver": "dir", "description": "ours"})
    lab.converge(pool, lab.desired("Volume", volume, {"pool": name, "size": 10 << 20}, [pool.id]))
    assert lab.raw("storage-pools", name, "volumes", "custom", volume)["config"]["size"] == "10MiB"
    changed = lab.desired("StoragePool", name, {"driver": "dir", "config": {"rsync.bwlimit": "100MB"}})
    lab.converge(changed, lab.desired("Volume", volume, {"pool": name, "size": 20 << 20}, [pool.id]))
    assert lab.raw("storage-pools", name)["config"]["rsync.bwlimit"] == "100MB"


def test_a_pool_keeps_its_driver(lab: Lab) -> None:
    name = lab.lxd.name("s")
    lab.converge(lab.desired("StoragePool", name, {"driver": "dir"}))
    outcomes = lab.apply(lab.desired("StoragePool", name, {"driver": "btrfs"}))
    assert outcomes[0].result is Result.HELD


def test_a_volume_with_snapshots_is_not_deleted_unasked(lab: Lab) -> None:
    name = lab.lxd.name("v")
    want = lab.desired("Volume", name, {"pool": "default"})
    lab.converge(want)
    path = ("storage-pools", "default", "volumes", "custom", name)
    lab.client.post((*path, "snapshots"), {"name": "precious"}, Deadline.after(ONE_REQUEST))
    step = Step(want.id, lab.backend.name, Verb.DELETE, "asked for")
    with pytest.raises(Refused, match="1 snapshots"):
        lab.backend.apply(step, None, seen(lab, want), lab.told.append)
    assert lab.client.find(*path) is not None
    from reconciler.backends.lxd.backend import LxdBackend

    told = Settings("tests", lab.lxd.state, lab.lxd.state, confirm_delete=True)
    confirmed = LxdBackend("lxd/local", {"socket": str(lab.lxd.socket)}, told)
    confirmed.apply(step, None, seen(lab, want), lab.told.append)
    confirmed.close()
    assert lab.client.find(*path) is None


def test_a_volume_in_use_is_deleted_after_its_user(lab: Lab) -> None:
    volume, guest = lab.lxd.name("v"), lab.lxd.name()
    device = {f"volume-{volume}": {"type": "disk", "pool": "default", "source": volume, "path": "/data"}}
    lab.converge(
        lab.desired("Volume", volume, {"pool": "default"}),
        lab.container(guest, needs=[ResourceId("Volume", volume)], devices=device),
    )
    outcomes = lab.apply(lab.desired("Image", "busybox", seen(lab, image(lab, "busybox")).applied or {}), prune=True)
    assert {one.result for one in outcomes} == {Result.APPLIED, Result.UNCHANGED}


def test_a_project_and_what_lives_in_it(lab: Lab) -> None:
    from tests.support.lxd import lab_on

    name = lab.lxd.name("j")
    features = {"features.images": "false", "features.profiles": "false"}
    project = lab.desired("Project", name, {"config": features})
    host = {"socket": str(lab.lxd.socket), "project": name}
    with lab_on(lab.lxd, host, "lxd/inner") as inner:
        guest = inner.container(lab.lxd.name())
        about = {guest.id, ResourceId("Volume", "x"), ResourceId("Profile", "x"), ResourceId("Image", "x")}
        assert inner.backend.observe(about).resources == {}  # not there yet is nothing, and no error
        outcomes = inner.apply(guest)
        assert outcomes[0].result is Result.FAILED and f'no project "{name}"' in str(outcomes[0].problem)
        lab.converge(project)
        inner.converge(guest)
        assert guest.id in inner.look().resources and guest.id not in lab.look().resources
        assert project.id in inner.look().resources[guest.id].needs
        # the images of the default project are used from here, and not pruned from here
        outcomes = inner.apply(guest, prune=True)
        assert lab.client.find("images", "aliases", "busybox") is not None
        inner.sweep()
    lab.converge(lab.desired("Project", name, {"config": {**features, "user.x": "1"}}))
    assert lab.raw("projects", name)["config"]["user.x"] == "1"


def test_the_third_party_edit_between_plan_and_write_is_not_lost(lab: Lab) -> None:
    name = lab.lxd.name("p")
    lab.converge(lab.desired("Profile", name, {"config": {"user.a": "1"}}))
    want = lab.desired("Profile", name, {"config": {"user.a": "2"}})
    plan, world = lab.plan(want)
    put(lab, "profiles", name, **{"user.a": "theirs"})
    with pytest.raises(Exception, match="changed by somebody else"):
        lab.backend.apply(plan.steps[0], want, world.find(lab.backend.name, want.id), lab.told.append)
    assert lab.raw("profiles", name)["config"]["user.a"] == "theirs"
