"""The dictionary between LXD's words and ours, as tables; no LXD needed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd import marks
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import understood
from reconciler.backends.lxd.effects import TABLE
from reconciler.backends.lxd.marks import Mark
from reconciler.backends.lxd.observe import observed_container
from reconciler.backends.lxd.terms import containers, networks, plain, values
from reconciler.diff import diff
from reconciler.effects import find_rule
from reconciler.model import Change, Effect, Power
from reconciler.problems import Unreachable


def instance(config: dict[str, str] | None = None, status: str = "Running", **more: Any) -> dict[str, Any]:
    """An instance as LXD shows it."""
    own = config or {}
    raw = {
        "name": "web",
        "type": "container",
        "architecture": "x86_64",
        "config": own,
        "expanded_config": {**more.pop("profile", {}), **own},
        "devices": {},
        "profiles": ["default"],
        "ephemeral": False,
        "status": status,
        "description": "",
    }
    return {**raw, **more}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512MiB", 512 << 20),
        ("2GiB", 2 << 30),
        ("512MB", 512_000_000),
        ("1024", 1024),
        ("1000B", 1000),
        ("5kB", 5000),
        ("50%", "50%"),
    ],
)
def test_sizes_are_read(text: str, value: object) -> None:
    assert values.read_size(text) == value


@pytest.mark.parametrize(("value", "text"), [(512 << 20, "512MiB"), (3 << 30, "3GiB"), (1000, "1000B"), ("50%", "50%")])
def test_sizes_are_written_with_a_unit(value: object, text: str) -> None:
    assert values.write_size(value) == text


@pytest.mark.parametrize(
    ("config", "path", "value"),
    [
        ({"limits.cpu": "2"}, ("cpus", "count"), 2),
        ({"limits.cpu": "0-3"}, ("cpus", "count"), "0-3"),
        ({"limits.memory": "1GiB"}, ("memory", "size"), 1 << 30),
        ({"limits.memory": "1024MiB"}, ("memory", "size"), 1 << 30),
        ({"security.nesting": "true"}, ("nesting",), True),
        ({"security.nesting": "1"}, ("nesting",), True),
        ({"security.privileged": "false"}, ("privileged",), False),
        ({}, ("nesting",), False),
        ({}, ("privileged",), False),
        ({}, ("cpus", "count"), None),
        ({"cloud-init.user-data": "#!"}, ("cloudInit", "userData"), "#!"),
        ({"user.user-data": "#!"}, ("cloudInit", "userData"), "#!"),
        ({"cloud-init.user-data": "new", "user.user-data": "old"}, ("cloudInit", "userData"), "new"),
        ({"user.meta-data": "m"}, ("cloudInit", "metaData"), "m"),
        ({"cloud-init.network-config": "n"}, ("cloudInit", "networkConfig"), "n"),
        ({"user.note": "hi"}, ("config", "user.note"), "hi"),
        ({"limits.cpu": "2"}, ("config", "limits.cpu"), "2"),
        ({"volatile.uuid": "x"}, ("config", "volatile.uuid"), None),
        ({"image.os": "x"}, ("config", "image.os"), None),
        ({"user.reconciler.id": "x"}, ("config", "user.reconciler.id"), None),
    ],
)
def test_instances_are_read(config: dict[str, str], path: tuple[str, ...], value: object) -> None:
    assert values.at(containers.spec_of(instance(config)), path) == value


def test_what_a_profile_gives_is_not_the_objects_own() -> None:
    spec = containers.spec_of(instance(profile={"security.nesting": "true", "limits.cpu": "4"}))
    assert "nesting" not in spec and "cpus" not in spec


@pytest.mark.parametrize(
    ("status", "power"),
    [
        ("Running", Power.RUNNING),
        ("Frozen", Power.PAUSED),
        ("Stopped", Power.STOPPED),
        ("Error", Power.ERROR),
        ("Something new", Power.ERROR),
    ],
)
def test_power(status: str, power: Power) -> None:
    assert containers.power_of(status) is power


SPEC = {
    "power": "running",
    "cpus": {"count": 2, "max": 4},
    "memory": {"size": 256 << 20, "max": 1 << 30},
    "nesting": True,
    "privileged": False,
    "cloudInit": {"userData": "#cloud-config\n"},
    "config": {"user.x": "1", "limits.processes": "5"},
    "devices": {"eth0": {"type": "nic", "network": "br"}},
    "profiles": ["default", "more"],
    "ephemeral": False,
    "ready": {"ip": True, "timeout": 120},
    "files": {"/x": {"sha256": "s", "mode": "0644", "owner": "0:0"}},
    "deletionPolicy": "delete",
}


def test_what_is_written_is_read_back_without_drift() -> None:
    raw = instance(containers.config_of(SPEC), devices=SPEC["devices"], profiles=SPEC["profiles"])
    assert diff(SPEC, containers.spec_of(raw, SPEC), SPEC) == ()


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (("cpus", "count"), {"limits.cpu"}),
        (("cpus", "max"), set()),
        (("memory",), {"limits.memory"}),
        (("config", "user.x"), {"user.x"}),
        (("cloudInit", "userData"), {"cloud-init.user-data", "user.user-data"}),
        (("power",), set()),
    ],
)
def test_keys_that_a_change_touches(path: tuple[str, ...], keys: set[str]) -> None:
    assert containers.keys_touched([Change("change", path, 1, 2)]) == keys


def network(**config: str) -> dict[str, Any]:
    return {"name": "br", "type": "bridge", "managed": True, "config": config}


@pytest.mark.parametrize(
    ("config", "path", "value"),
    [
        ({"ipv4.address": "10.1.1.1/24"}, ("ipv4", "address"), "10.1.1.1/24"),
        ({"ipv4.nat": "true"}, ("ipv4", "nat"), True),
        ({}, ("ipv4", "nat"), False),
        ({}, ("ipv6", "dhcp"), True),
        ({"dns.domain": "x"}, ("dns", "domain"), "x"),
        ({}, ("dns", "domain"), "lxd"),
        ({"volatile.bridge.hwaddr": "x"}, ("config", "volatile.bridge.hwaddr"), None),
    ],
)
def test_networks_are_read(config: dict[str, str], path: tuple[str, ...], value: object) -> None:
    assert values.at(networks.spec_of(network(**config)), path) == value


def test_a_chosen_address_is_auto_only_where_auto_was_asked() -> None:
    raw = network(**{"ipv4.address": "10.9.9.1/24", "ipv6.address": "fd42::1/64"})
    spec = networks.spec_of(raw, {"ipv4": {"address": "auto"}, "ipv6": {"address": "fd42::2/64"}})
    assert spec["ipv4"]["address"] == "auto" and spec["ipv6"]["address"] == "fd42::1/64"
    gone = networks.spec_of(network(**{"ipv4.address": "none"}), {"ipv4": {"address": "auto"}})
    assert gone["ipv4"]["address"] == "none"


def test_a_pool_keeps_the_source_that_was_said() -> None:
    raw = {"name": "p", "driver": "lvm", "config": {"source": "vg0", "volatile.initial_source": "/dev/sdb"}}
    assert plain.pool_spec(raw, {"source": "/dev/sdb"})["source"] == "/dev/sdb"
    assert plain.pool_spec(raw)["source"] == "vg0"


# The mark ---------------------------------------------------------------------------------------------------------

MARK = Mark("prod", "Container/web", {"power": "running"}, "create", {"name": "i", "identity": "x"})


def test_a_mark_is_read_as_it_was_written() -> None:
    assert marks.read_mark(marks.mark_config(MARK), "Container/web") == MARK


@pytest.mark.parametrize(
    "config",
    [{}, {"user.note": "x"}, {**marks.mark_config(MARK), marks.ID: "Container/other"}],
    ids=["none", "foreign", "of another object"],
)
def test_what_bears_no_mark_of_its_own_is_not_ours(config: dict[str, str]) -> None:
    assert marks.read_mark(config, "Container/web") is None


def test_a_garbled_record_is_no_record() -> None:
    config = {**marks.mark_config(MARK), marks.APPLIED: "{half", marks.IMAGE: "[]"}
    found = marks.read_mark(config, "Container/web")
    assert found is not None and found.applied is None and found.image is None


def test_while_it_is_renamed_it_is_ours_under_both_names() -> None:
    config = {**marks.mark_config(MARK), marks.PENDING: marks.renaming("Container/new")}
    assert marks.read_mark(config, "Container/web") is not None
    assert marks.read_mark(config, "Container/new") is not None
    assert marks.read_mark(config, "Container/third") is None


def test_an_alias_bears_its_mark_in_its_description() -> None:
    mark = Mark("prod", "Image/x", {"identity": "1"})
    text = marks.alias_description(mark)
    assert text.startswith("managed by reconciler: ")
    assert marks.read_alias_description(text, "Image/x") == mark
    assert marks.read_alias_description(text, "Image/y") is None
    assert marks.read_alias_description("managed by reconciler: junk", "Image/x") is None


def test_the_image_is_what_the_guest_was_made_from() -> None:
    config = marks.mark_config(Mark("e", "Container/web", {"image": {"identity": "new"}}, None, {"identity": "old"}))
    assert observed_container(instance(config), "lxd/local").spec["image"] == {"identity": "old"}


def test_a_rebuilt_guest_is_not_from_the_recorded_image() -> None:
    image = {"identity": "old", "fingerprint": "aaa"}
    config = marks.mark_config(Mark("e", "Container/web", {}, None, image)) | {"volatile.base_image": "bbb"}
    assert observed_container(instance(config), "lxd/local").spec["image"] == {"fingerprint": "bbb"}


# Effects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "effect"),
    [
        (("config", "limits.memory"), Effect.LIVE),
        (("config", "limits.kernel.nofile"), Effect.RESTART),
        (("config", "security.privileged"), Effect.RESTART),
        (("config", "security.syscalls.intercept.mknod"), Effect.RESTART),
        (("config", "raw.lxc"), Effect.RESTART),
        (("config", "user.anything"), Effect.LIVE),
        (("config", "user.user-data"), Effect.RESTART),
        (("config", "raw.qemu"), Effect.IMPOSSIBLE),
        (("config", "environment.LANG"), Effect.LIVE),
        (("image", "identity"), Effect.REPLACE),
        (("devices", "eth0"), Effect.LIVE),
        (("devices", "eth0", "hwaddr"), Effect.LIVE),
    ],
)
def test_what_changes_do(field: tuple[str, ...], effect: Effect) -> None:
    rule = find_rule(field, TABLE["Container"])
    assert rule is not None and rule.effect is effect


@pytest.mark.parametrize(
    ("field", "effect"),
    [
        (("config", "limits.memory"), Effect.LIVE),
        (("config", "limits.kernel.nofile"), Effect.LIVE),
        (("devices", "eth0"), Effect.LIVE),
    ],
)
def test_what_changes_of_a_profile_do(field: tuple[str, ...], effect: Effect) -> None:
    rule = find_rule(field, TABLE["Profile"])
    assert rule is not None and rule.effect is effect and rule.note
    assert find_rule(("config", "nonsense"), TABLE["Profile"]) is None


@pytest.mark.parametrize("key", ["limits.brand.new", "security.brand.new", "nonsense"])
def test_a_key_that_nobody_knows_has_no_effect_on_purpose(key: str) -> None:
    assert find_rule(("config", key), TABLE["Container"]) is None


@pytest.mark.parametrize("odd", [None, 1, [], "odd", {"odd": 1}, [[]]], ids=repr)
def test_an_lxd_elsewhere_may_say_anything(odd: Any) -> None:
    sound = instance({"user.a": "b"}, devices={"a": {"type": "disk", "path": "/a"}})
    for field in sound:
        with suppress(Unreachable), understood(Address(url="https://127.0.0.1:1")):
            observed_container({**sound, field: odd}, "lxd/vm")
    with pytest.raises(Unreachable, match="makes no sense"), understood(Address(url="https://127.0.0.1:1")):
        observed_container({}, "lxd/vm")
    with pytest.raises(KeyError), understood(Address(socket=Path("/local"))):
        observed_container({}, "lxd/local")
