"""What is taken out of the manifest is taken out of LXD too, field by field; what others set stays."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from tests.support.lxd import Lab
from tests.support.unique import own_net

MIB = 1 << 20
BRIDGE = {"type": "bridge", "ipv4": {"address": f"{own_net()}.11.1/24"}, "ipv6": {"address": "none"}}

# What is said for a while, and where LXD has it: the path in its object, and what is there afterwards.
CONTAINER: list[tuple[dict[str, Any], tuple[str, ...], Any]] = [
    ({"ephemeral": True}, ("ephemeral",), False),
    ({"profiles": []}, ("profiles",), ["default"]),
    ({"cpus": {"count": 1}}, ("config", "limits.cpu"), None),
    ({"memory": {"size": 64 * MIB}}, ("config", "limits.memory"), None),
    ({"nesting": True}, ("config", "security.nesting"), None),
    ({"privileged": True}, ("config", "security.privileged"), None),
    ({"cloudInit": {"userData": "#cloud-config\n"}}, ("config", "cloud-init.user-data"), None),
    ({"cloudInit": {"metaData": "a: b"}}, ("config", "user.meta-data"), None),
    ({"cloudInit": {"networkConfig": "version: 2"}}, ("config", "cloud-init.network-config"), None),
    ({"config": {"user.note": "hello"}}, ("config", "user.note"), None),
    ({"devices": {"zero": {"type": "unix-char", "source": "/dev/zero", "path": "/dev/z"}}}, ("devices", "zero"), None),
]
PLAIN: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...], Any]] = [
    ("Profile", {}, {"description": "some"}, ("description",), ""),
    ("Profile", {}, {"config": {"user.note": "some"}}, ("config", "user.note"), None),
    ("Profile", {}, {"devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}}, ("devices", "root"), None),
    ("StoragePool", {"driver": "dir"}, {"description": "some"}, ("description",), ""),
    ("StoragePool", {"driver": "dir"}, {"config": {"rsync.bwlimit": "1MB"}}, ("config", "rsync.bwlimit"), None),
    ("Project", {}, {"description": "some"}, ("description",), ""),
    ("Project", {}, {"config": {"user.note": "some"}}, ("config", "user.note"), None),
    ("Volume", {"pool": "default"}, {"size": MIB}, ("config", "size"), None),
    ("Volume", {"pool": "default"}, {"config": {"user.note": "some"}}, ("config", "user.note"), None),
    ("Network", BRIDGE, {"dns": {"domain": "some"}}, ("config", "dns.domain"), None),
    ("Network", BRIDGE, {"ipv4": {"nat": True}}, ("config", "ipv4.nat"), None),
    ("Network", BRIDGE, {"ipv4": {"dhcp": False}}, ("config", "ipv4.dhcp"), None),
    ("Network", BRIDGE, {"config": {"user.note": "some"}}, ("config", "user.note"), None),
]
FOLDERS = {
    "Profile": ("profiles",),
    "StoragePool": ("storage-pools",),
    "Project": ("projects",),
    "Volume": ("storage-pools", "default", "volumes", "custom"),
    "Network": ("networks",),
}


def found(raw: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = raw
    for part in path:
        value = value.get(part)
    return value


def words(row: tuple[Any, ...]) -> str:
    kind = row[0] if isinstance(row[0], str) else "Container"
    return f"{kind} {'.'.join(row[-2])}"


@pytest.mark.parametrize("row", CONTAINER, ids=words)
@pytest.mark.parametrize("pending", [False, True], ids=["", "finishing"])
def test_a_field_taken_out_of_a_container_is_gone(lab: Lab, row: tuple[Any, ...], pending: bool) -> None:
    said, path, afterwards = row
    name, power = lab.lxd.name(), "stopped"
    second = lab.lxd.name("p")
    needs = []
    if "profiles" in said:
        said = {"profiles": ["default", second]}
        needs = [lab.desired("Profile", second, {})]
    lab.converge(*needs, lab.container(name, power=power, needs=[one.id for one in needs], **said))
    assert found(lab.raw("instances", name), path) not in (None, afterwards)
    if pending:
        note = {"config": {"user.reconciler.pending": "update"}}
        lab.client.patch(("instances", name), note, Deadline.after(60))
    lab.converge(lab.container(name, power=power))
    assert found(lab.raw("instances", name), path) == afterwards


@pytest.mark.parametrize("row", PLAIN, ids=words)
def test_a_field_taken_out_of_an_object_is_gone(lab: Lab, row: tuple[Any, ...]) -> None:
    kind, always, said, path, afterwards = row
    name = lab.lxd.name("o")
    both = {key: {**value, **always.get(key, {})} if isinstance(value, dict) else value for key, value in said.items()}
    at = (*FOLDERS[kind], name)
    lab.converge(lab.desired(kind, name, {**always, **both}))
    assert found(lab.raw(*at), path) not in (None, afterwards)
    lab.converge(lab.desired(kind, name, always))
    assert found(lab.raw(*at), path) == afterwards


ROOT = {"root": {"type": "disk", "path": "/", "pool": "default"}}


@pytest.mark.parametrize("power", ["running", "stopped"])
def test_the_last_root_disk_is_not_taken_away(lab: Lab, power: str) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, profiles=[], devices=ROOT))
    began = lab.init_start(name)
    outcomes = lab.apply(lab.container(name, profiles=[], power=power))
    assert "no root disk would be left" in str(outcomes[0].problem)
    assert lab.init_start(name) == began
    lab.converge(lab.container(name))  # the default profile has one
    lab.inside(name, "true")


def test_the_profile_with_the_root_disk_is_not_taken_away(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    began = lab.init_start(name)
    outcomes = lab.apply(lab.container(name, profiles=[]))
    assert "no root disk would be left" in str(outcomes[0].problem)
    assert lab.init_start(name) == began
