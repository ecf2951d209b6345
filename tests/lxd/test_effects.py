"""Every row of the effects table, on real guests: it acts as the table says, and restarts just when the table says so.

Whether it restarted is told by the start time of the container's init, whether it acts by the guest's own word.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.effects import TABLE
from reconciler.backends.lxd.terms import containers as terms
from reconciler.model import Desired, Effect, ResourceId, Result, Spec, Verb
from tests.support.lxd import Lab
from tests.support.unique import own_net

MIB = 1 << 20
SOME = "whatever this machine has"
GROUPS = Path("/sys/fs/cgroup")
PAYLOAD = {"1" * 64: b"one\n", "2" * 64: b"two\n"}


def inside(script: str) -> Callable[[Lab, str], str]:
    """What the guest says to a command."""
    return lambda lab, name: lab.inside(name, "sh", "-c", script).strip()


def group(controller: str, file: str) -> Callable[[Lab, str], str]:
    """What the kernel holds its cgroup to."""
    return lambda _lab, name: (GROUPS / controller / f"lxc.payload.{name}" / file).read_text().strip()


def cpus(lab: Lab, name: str) -> str:
    """How long the list of its CPUs is: which ones it gets is LXD's choice."""
    return str(len(group("cpuset", "cpuset.cpus")(lab, name)))


def configured(key: str) -> Callable[[Lab, str], str]:
    """For what only LXD acts upon, later: its own word."""
    return lambda lab, name: str(lab.raw("instances", name)["config"].get(key, ""))


@dataclass(frozen=True)
class Row:
    """A row of the Container table: from ``before`` to ``after``, ``ask`` goes from ``was`` to ``now``."""

    pattern: str
    after: Mapping[str, Any]
    ask: Callable[[Lab, str], str]
    now: str
    was: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)


def key(pattern: str, name: str, value: str, ask: Callable[[Lab, str], str], now: str, was: str = "") -> Row:
    """A row about one LXD key, which was not set before."""
    return Row(f"config.<{pattern}>", {"config": {name: value}}, ask, now, was)


def later(pattern: str, name: str, value: str) -> Row:
    return key(pattern, name, value, configured(name), value)


RUN = [{"command": ["sh", "-c", "echo ran >> /ran"], "when": "change", "timeout": 60}]
FILE = {"mode": "0644", "owner": "0:0"}
OTHERS = {"config": {"limits.memory": "64MiB"}}

ROWS = [
    Row(
        "cpus.**",
        {"cpus": {"count": 1}},
        cpus,
        "1",
        "3",
    ),
    Row(
        "memory.**", {"memory": {"size": 96 * MIB}}, group("memory", "memory.limit_in_bytes"), str(96 * MIB), "67108864"
    ),
    Row("nesting", {"nesting": True}, inside("test -d /dev/.lxc/proc && echo yes || echo no"), "yes", "no"),
    Row("privileged", {"privileged": True}, inside("awk '{print $2}' /proc/self/uid_map"), "0", "100000"),
    Row(
        "ephemeral",
        {"ephemeral": True},
        lambda lab, name: str(lab.raw("instances", name)["ephemeral"]),
        "True",
        "False",
    ),
    Row("files.**", {"files": {"/note": {**FILE, "sha256": "2" * 64}}}, inside("cat /note"), "two", "one"),
    Row("run", {"run": RUN}, inside("cat /ran 2>/dev/null || echo no"), "ran", "no"),
    key("boot.autostart", "boot.autostart", "true", configured("boot.autostart"), "true", "false"),
    later("boot.autostart.delay", "boot.autostart.delay", "3"),
    later("boot.autostart.priority", "boot.autostart.priority", "3"),
    later("boot.host_shutdown_timeout", "boot.host_shutdown_timeout", "7"),
    later("boot.stop.priority", "boot.stop.priority", "3"),
    later("cluster.evacuate", "cluster.evacuate", "stop"),
    key("environment.*", "environment.MOOD", "fine", inside("echo $MOOD"), "fine"),
    key(
        "linux.sysctl.*",
        "linux.sysctl.net.ipv4.ip_default_ttl",
        "33",
        inside("cat /proc/sys/net/ipv4/ip_default_ttl"),
        "33",
        "64",
    ),
    later("linux.kernel_modules", "linux.kernel_modules", "loop"),
    later("user.*", "user.note", "hello"),
    key("limits.cpu", "limits.cpu", "1", cpus, "1", "3"),
    key("limits.cpu.allowance", "limits.cpu.allowance", "25ms/100ms", group("cpu", "cpu.cfs_quota_us"), "25000", "-1"),
    key("limits.cpu.priority", "limits.cpu.priority", "5", group("cpu", "cpu.shares"), "1019", "1024"),
    key("limits.kernel.*", "limits.kernel.nofile", "777", inside("ulimit -n"), "777", SOME),
    key("limits.memory", "limits.memory", "72MiB", group("memory", "memory.limit_in_bytes"), str(72 * MIB), SOME),
    Row(
        "config.<limits.memory.enforce>",
        {"config": {"limits.memory": "64MiB", "limits.memory.enforce": "soft"}},
        group("memory", "memory.soft_limit_in_bytes"),
        str(64 * MIB),
        "60395520",
        OTHERS,
    ),
    Row(
        "config.<limits.memory.swap>",
        {"config": {"limits.memory": "64MiB", "limits.memory.swap": "false"}},
        group("memory", "memory.swappiness"),
        "0",
        "60",
        OTHERS,
    ),
    Row(
        "config.<limits.memory.swap.priority>",
        {"config": {"limits.memory": "64MiB", "limits.memory.swap.priority": "3"}},
        group("memory", "memory.swappiness"),
        "67",
        "60",
        OTHERS,
    ),
    key("limits.processes", "limits.processes", "60", group("pids", "pids.max"), "60", "max"),
    later("migration.incremental.memory", "migration.incremental.memory", "true"),
    later("migration.incremental.memory.goal", "migration.incremental.memory.goal", "60"),
    later("migration.incremental.memory.iterations", "migration.incremental.memory.iterations", "6"),
    key(
        "raw.*",
        "raw.lxc",
        "lxc.environment = MOOD=fine",
        inside("tr '\\0' '\\n' < /proc/1/environ | grep MOOD || echo no"),
        "MOOD=fine",
        "no",
    ),
    later("snapshots.*", "snapshots.expiry", "1d"),
    key("security.devlxd", "security.devlxd", "false", inside("test -e /dev/lxd && echo yes || echo no"), "no", "yes"),
    later("security.devlxd.images", "security.devlxd.images", "true"),
    key(
        "security.idmap.*",
        "security.idmap.isolated",
        "true",
        inside("awk '{print $3}' /proc/self/uid_map"),
        "65536",
        "10000001",
    ),
    key(
        "security.nesting",
        "security.nesting",
        "true",
        inside("test -d /dev/.lxc/proc && echo yes || echo no"),
        "yes",
        "no",
    ),
    key(
        "security.privileged",
        "security.privileged",
        "true",
        inside("awk '{print $2}' /proc/self/uid_map"),
        "0",
        "100000",
    ),
    later("security.protection.delete", "security.protection.delete", "true"),
    later("security.protection.shift", "security.protection.shift", "true"),
    key(
        "security.syscalls.*",
        "security.syscalls.deny",
        "sethostname errno 1",
        inside("hostname other 2>/dev/null && echo may || echo not"),
        "not",
        "may",
    ),
]
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "cpus.**": {"cpus": {"count": 2}},
    "memory.**": {"memory": {"size": 64 * MIB}},
    "files.**": {"files": {"/note": {**FILE, "sha256": "1" * 64}}},
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.pattern)
def test_a_row_of_the_container_table(lab: Lab, row: Row) -> None:
    name = lab.lxd.name()
    rule = TABLE["Container"][row.pattern]
    lab.converge(lab.container(name, payload=PAYLOAD, **(row.before or BEFORE.get(row.pattern, {}))))
    began = lab.init_start(name)
    before = row.ask(lab, name)
    assert before != row.now and row.was in (before, SOME)
    if rule.effect is Effect.RESTART:
        accepted_is_not_live(lab, name, row)
    outcomes = lab.converge(lab.container(name, payload=PAYLOAD, **row.after))
    assert outcomes[0].step.effect is rule.effect
    assert (lab.init_start(name) == began) is (rule.effect is Effect.LIVE)
    assert row.ask(lab, name) == row.now


def accepted_is_not_live(lab: Lab, name: str, row: Row) -> None:
    """LXD takes it on a running container, and nothing comes of it: so the table says restart."""
    config = terms.config_of(row.after)
    lab.client.patch(("instances", name), {"config": config}, Deadline.after(60))
    assert row.ask(lab, name) != row.now
    lab.client.patch(("instances", name), {"config": dict.fromkeys(config, "")}, Deadline.after(60))


VIRTUAL_MACHINES_ONLY = {
    "config.<agent.nic_config>": ("agent.nic_config", "true"),
    "config.<limits.memory.hugepages>": ("limits.memory.hugepages", "true"),
    "config.<migration.stateful>": ("migration.stateful", "true"),
    "config.<raw.qemu>": ("raw.qemu", "-nothing"),
    "config.<raw.qemu.conf>": ("raw.qemu.conf", "[nothing]"),
    "config.<security.agent.metrics>": ("security.agent.metrics", "true"),
    "config.<security.secureboot>": ("security.secureboot", "false"),
}


@pytest.mark.parametrize("pattern", VIRTUAL_MACHINES_ONLY)
def test_keys_of_virtual_machines_are_held_and_lxd_refuses_them(lab: Lab, pattern: str) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    setting, value = VIRTUAL_MACHINES_ONLY[pattern]
    outcomes = lab.apply(lab.container(name, config={setting: value}))
    assert outcomes[0].result is Result.HELD and outcomes[0].step.effect is Effect.IMPOSSIBLE
    with pytest.raises(Exception, match=setting.replace(".", r"\.")):
        lab.client.patch(("instances", name), {"config": {setting: value}}, Deadline.after(60))


def test_kernel_modules_are_loaded_at_once(lab: Lab) -> None:
    """This kernel has none to load; that LXD tries is seen by its refusal of one that there is not."""
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    outcomes = lab.apply(lab.container(name, config={"linux.kernel_modules": "rtnosuchmodule"}))
    assert outcomes[0].result is Result.FAILED and "rtnosuchmodule" in str(outcomes[0].problem)


def test_profiles_restart(lab: Lab) -> None:
    name, profile = lab.lxd.name(), lab.lxd.name("p")
    made = lab.desired("Profile", profile, {"config": {"limits.processes": "55"}})
    lab.converge(made, lab.container(name, profiles=["default"]))
    began = lab.init_start(name)
    outcomes = lab.converge(made, lab.container(name, needs=[made.id], profiles=["default", profile]))
    assert outcomes[0].step.verb is Verb.RESTART and lab.init_start(name) != began
    assert group("pids", "pids.max")(lab, name) == "55"


def test_rows_of_a_profile_act_at_once_or_at_the_next_start(lab: Lab) -> None:
    """All of them in one profile: what is live for a container acts at once, the rest when it starts again."""
    name, profile = lab.lxd.name(), lab.lxd.name("p")
    user = lab.container(name, needs=[ResourceId("Profile", profile)], profiles=["default", profile])
    rows = {row.pattern: row for row in ROWS if row.pattern in TABLE["Profile"] and row.pattern not in NOT_TOGETHER}
    lab.converge(lab.desired("Profile", profile, {"config": {"limits.memory": "64MiB"}}), user)
    began = lab.init_start(name)
    config = {name: value for row in rows.values() for name, value in row.after["config"].items()}
    outcomes = lab.converge(lab.desired("Profile", profile, {"config": config}), user)
    assert outcomes[-1].step.effect is Effect.LIVE and lab.init_start(name) == began
    expanded = lab.raw("instances", name)["expanded_config"]
    assert {key: expanded[key] for key in config} == config
    restarting = {pattern for pattern in rows if TABLE["Container"][pattern].effect is Effect.RESTART}
    for pattern, row in rows.items():
        if pattern not in restarting and row.ask(lab, name) != "":
            assert row.ask(lab, name) == row.now, pattern
    assert not [pattern for pattern in restarting if rows[pattern].ask(lab, name) == rows[pattern].now]
    lab.backend.power(ResourceId("Container", name), "restart", True, 10, lab.told.append)
    assert not [pattern for pattern in restarting if rows[pattern].ask(lab, name) != rows[pattern].now]


NOT_TOGETHER = {
    "config.<boot.autostart>",  # a container of ours says it itself
    "config.<security.privileged>",  # then there are no ids to map
    "config.<limits.memory>",
    "config.<limits.memory.enforce>",  # soft and hard at once
    "config.<security.protection.shift>",  # then ids are not mapped anew
    "config.<limits.memory.swap.priority>",  # there is none without swap
}


# The other kinds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """A row of another kind's table, shown by what the host or LXD says of it."""

    kind: str
    pattern: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    ask: Callable[[Lab, str], str]
    now: str


def link(file: str) -> Callable[[Lab, str], str]:
    return lambda _lab, name: Path(f"/sys/class/net/{name}/{file}").read_text().strip()


def addresses(_lab: Lab, name: str) -> str:
    import subprocess

    return subprocess.run(["ip", "-o", "addr", "show", name], capture_output=True, text=True, check=True).stdout


def dnsmasq(lab: Lab, name: str) -> str:
    """How the server for names and addresses on that bridge was started, with its own configuration."""
    folder = Path(f"/proc/{lab.lxd.daemon.pid}/root") / str(lab.lxd.daemon.folder).lstrip("/") / "networks" / name
    pid = (folder / "dnsmasq.pid").read_text().split("pid: ")[1].split()[0]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return words + (folder / "dnsmasq.raw").read_text()


def raw_of(*path: str) -> Callable[[Lab, str], str]:
    return lambda lab, name: str(lab.raw(*path, name))


NET = own_net()
SIX = f"fd42:{NET[3:]}::1/64"
BRIDGE = {"type": "bridge", "ipv4": {"address": f"{NET}.91.1/24", "nat": False}, "ipv6": {"address": "none"}}
VOLUMES = ("storage-pools", "default", "volumes", "custom")

PLAIN = [
    Plain(
        "Network",
        "ipv4.**",
        BRIDGE,
        {**BRIDGE, "ipv4": {"address": f"{NET}.92.1/24", "nat": False}},
        addresses,
        f"{NET}.92.1/24",
    ),
    Plain(
        "Network",
        "ipv6.**",
        BRIDGE,
        {**BRIDGE, "ipv6": {"address": SIX, "nat": False}},
        addresses,
        SIX,
    ),
    Plain("Network", "dns.**", BRIDGE, {**BRIDGE, "dns": {"domain": "moved.lan"}}, dnsmasq, "moved.lan"),
    Plain("Network", "config.<dns.*>", BRIDGE, {**BRIDGE, "config": {"dns.search": "found.lan"}}, dnsmasq, "found.lan"),
    Plain("Network", "config.<bridge.*>", BRIDGE, {**BRIDGE, "config": {"bridge.mtu": "1400"}}, link("mtu"), "1400"),
    Plain("Network", "config.<ipv4.*>", BRIDGE, {**BRIDGE, "config": {"ipv4.dhcp.expiry": "7h"}}, dnsmasq, "7h"),
    Plain(
        "Network",
        "config.<ipv6.*>",
        {**BRIDGE, "ipv6": {"address": SIX, "nat": False}},
        {
            **BRIDGE,
            "ipv6": {"address": SIX, "nat": False},
            "config": {"ipv6.dhcp.expiry": "8h", "ipv6.dhcp.stateful": "true"},
        },
        dnsmasq,
        "8h",
    ),
    Plain(
        "Network",
        "config.<raw.dnsmasq>",
        BRIDGE,
        {**BRIDGE, "config": {"raw.dnsmasq": "cache-size=77"}},
        dnsmasq,
        "cache-size=77",
    ),
    Plain("Network", "config.<user.*>", BRIDGE, {**BRIDGE, "config": {"user.x": "noted"}}, raw_of("networks"), "noted"),
    Plain(
        "Network",
        "config.<bgp.*>",
        BRIDGE,
        {**BRIDGE, "config": {"bgp.peers.x.address": "10.9.9.9", "bgp.peers.x.asn": "65000"}},
        raw_of("networks"),
        "10.9.9.9",
    ),
    Plain("Profile", "description", {}, {"description": "noted"}, raw_of("profiles"), "noted"),
    Plain(
        "StoragePool",
        "description",
        {"driver": "dir"},
        {"driver": "dir", "description": "noted"},
        raw_of("storage-pools"),
        "noted",
    ),
    Plain(
        "StoragePool",
        "config.<user.*>",
        {"driver": "dir"},
        {"driver": "dir", "config": {"user.x": "noted"}},
        raw_of("storage-pools"),
        "noted",
    ),
    Plain(
        "StoragePool",
        "config.<rsync.*>",
        {"driver": "dir"},
        {"driver": "dir", "config": {"rsync.bwlimit": "77MB"}},
        raw_of("storage-pools"),
        "77MB",
    ),
    Plain(
        "StoragePool",
        "config.<volume.*>",
        {"driver": "dir"},
        {"driver": "dir", "config": {"volume.size": "77MiB"}},
        raw_of("storage-pools"),
        "77MiB",
    ),
    Plain("Project", "description", {}, {"description": "noted"}, raw_of("projects"), "noted"),
    Plain("Project", "config.<user.*>", {}, {"config": {"user.x": "noted"}}, raw_of("projects"), "noted"),
    Plain(
        "Project",
        "config.<images.*>",
        {},
        {"config": {"images.default_architecture": "x86_64"}},
        raw_of("projects"),
        "x86_64",
    ),
    Plain(
        "Project",
        "config.<backups.*>",
        {},
        {"config": {"backups.compression_algorithm": "none"}},
        raw_of("projects"),
        "none",
    ),
    Plain(
        "Volume",
        "size",
        {"pool": "default", "size": 10 * MIB},
        {"pool": "default", "size": 20 * MIB},
        raw_of(*VOLUMES),
        "20MiB",
    ),
    Plain(
        "Volume",
        "config.<size>",
        {"pool": "default"},
        {"pool": "default", "config": {"size": "30MiB"}},
        raw_of(*VOLUMES),
        "30MiB",
    ),
    Plain(
        "Volume",
        "config.<user.*>",
        {"pool": "default"},
        {"pool": "default", "config": {"user.x": "noted"}},
        raw_of(*VOLUMES),
        "noted",
    ),
    Plain(
        "Volume",
        "config.<snapshots.*>",
        {"pool": "default"},
        {"pool": "default", "config": {"snapshots.expiry": "6d"}},
        raw_of(*VOLUMES),
        "6d",
    ),
]


def wanted(lab: Lab, kind: str, name: str, spec: Mapping[str, Any]) -> Desired:
    return lab.desired(kind, name, spec)


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: f"{row.kind}-{row.pattern}")
def test_a_row_of_another_table(lab: Lab, row: Plain) -> None:
    name = lab.lxd.name({"Network": "b"}.get(row.kind, "x"))
    lab.converge(wanted(lab, row.kind, name, row.before))
    guest, began = user_of(lab, row.kind, name)
    assert row.now not in row.ask(lab, name)
    outcomes = lab.converge(wanted(lab, row.kind, name, row.after))
    assert outcomes[0].step.effect is TABLE[row.kind][row.pattern].effect is Effect.LIVE
    assert row.now in row.ask(lab, name)
    assert guest is None or lab.init_start(guest) == began


def user_of(lab: Lab, kind: str, name: str) -> tuple[str | None, str]:
    """A running container that uses it, where one can."""
    devices = {
        "Network": {"eth0": {"type": "nic", "network": name, "name": "eth0"}},
        "Volume": {"data": {"type": "disk", "pool": "default", "source": name, "path": "/data"}},
    }
    profiles = {"Profile": {"profiles": ["default", name]}}
    if kind not in {**devices, **profiles}:
        return None, ""
    guest = lab.lxd.name()
    more: dict[str, Any] = profiles.get(kind) or {"devices": devices[kind]}
    lab.converge(lab.container(guest, **more))
    return guest, lab.init_start(guest)


def test_a_projects_limits_and_restrictions_act_at_once(lab: Lab) -> None:
    name, first, second = lab.lxd.name("j"), lab.lxd.name(), lab.lxd.name()
    features = {"features.images": "false", "features.profiles": "true"}
    lab.converge(wanted(lab, "Project", name, {"config": features}))

    def make(guest: str, **config: str) -> None:
        root = {"type": "disk", "path": "/", "pool": "default"}
        body = {"name": guest, "source": {"type": "none"}, "config": config, "devices": {"root": root}}
        lab.client.post(("instances",), body, Deadline.after(60), project=name)

    make(first)
    try:
        lab.converge(wanted(lab, "Project", name, {"config": {**features, "limits.containers": "1"}}))
        with pytest.raises(Exception, match="maximum number"):
            make(second)
        lab.converge(wanted(lab, "Project", name, {"config": {**features, "restricted": "true"}}))
        with pytest.raises(Exception, match="rivileged"):
            make(second, **{"security.privileged": "true"})
    finally:
        lab.client.delete(("instances", first), Deadline.after(60), project=name)


@pytest.mark.parametrize("setting", ["security.shifted", "security.unmapped"])
def test_how_a_volume_is_mapped_acts_at_the_next_start(lab: Lab, setting: str) -> None:
    """The mount that is there stays as it was made; the plan has nobody to restart, so its note says it."""
    volume = lab.lxd.name("v")
    lab.converge(wanted(lab, "Volume", volume, {"pool": "default"}))
    outcomes = lab.converge(wanted(lab, "Volume", volume, {"pool": "default", "config": {setting: "true"}}))
    assert "next start" in outcomes[0].step.changes[0].note
    assert lab.raw(*VOLUMES, volume)["config"][setting] == "true"


HELD: dict[tuple[str, str], tuple[Spec, Spec]] = {
    ("Network", "config.<bridge.driver>"): (BRIDGE, {**BRIDGE, "config": {"bridge.driver": "openvswitch"}}),
    ("Network", "config.<bridge.mode>"): (BRIDGE, {**BRIDGE, "config": {"bridge.mode": "fan"}}),
    ("StoragePool", "driver"): ({"driver": "dir"}, {"driver": "btrfs"}),
    ("StoragePool", "source"): ({"driver": "dir"}, {"driver": "dir", "source": "/elsewhere"}),
    ("StoragePool", "config.<source>"): ({"driver": "dir"}, {"driver": "dir", "config": {"source": "/elsewhere"}}),
    ("StoragePool", "config.<size>"): ({"driver": "dir"}, {"driver": "dir", "config": {"size": "1GiB"}}),
    ("Project", "config.<features.*>"): (
        {"config": {"features.images": "false"}},
        {"config": {"features.images": "true"}},
    ),
    ("Volume", "pool"): ({"pool": "default"}, {"pool": "elsewhere"}),
    ("Volume", "config.<block.*>"): ({"pool": "default"}, {"pool": "default", "config": {"block.filesystem": "ext4"}}),
}


@pytest.mark.parametrize("row", HELD, ids="-".join)
def test_what_cannot_be_done_is_held(lab: Lab, row: tuple[str, str]) -> None:
    kind, pattern = row
    name = lab.lxd.name("x")
    before, after = HELD[row]
    lab.converge(wanted(lab, kind, name, before))
    outcomes = lab.apply(wanted(lab, kind, name, after))
    assert outcomes[0].result is Result.HELD
    assert outcomes[0].step.effect is TABLE[kind][pattern].effect is Effect.IMPOSSIBLE


# Nothing is left out ------------------------------------------------------------------------------------------------

ELSEWHERE = {
    ("Container", "power"): "test_containers.test_power_follows_the_manifest",
    ("Container", "metadata.name"): "test_containers.test_a_renamed_container_keeps_its_disk",
    ("Container", "image.**"): "test_containers.test_a_followed_image_replaces_and_volumes_survive",
    ("Container", "profiles"): "test_effects.test_profiles_restart",
    ("Container", "user.**"): "test_home.test_an_account_is_set_up_changed_and_taken_back_while_it_runs",
    ("Container", "timezone"): "test_home.test_an_account_is_set_up_changed_and_taken_back_while_it_runs",
    ("Container", "locale"): "test_home.test_an_account_is_set_up_changed_and_taken_back_while_it_runs",
    ("Container", "devices.*"): "test_devices.test_a_character_device",
    ("Container", "devices.*.*"): "test_devices.test_what_of_a_card_changes_in_place_and_what_plugs_it_in_anew",
    (
        "Container",
        "devices.*.<limits.*>",
    ): "test_devices.test_what_of_a_card_changes_in_place_and_what_plugs_it_in_anew",
    (
        "Container",
        "devices.*.<ipv4.address>",
    ): "test_devices.test_what_of_a_card_changes_in_place_and_what_plugs_it_in_anew",
    (
        "Container",
        "devices.*.<ipv4.routes*>",
    ): "test_devices.test_what_of_a_card_changes_in_place_and_what_plugs_it_in_anew",
    ("Container", "devices.*.<security.mac_filtering>"): (
        "test_devices.test_what_of_a_card_changes_in_place_and_what_plugs_it_in_anew"
    ),
    ("Container", "devices.*.<security.ipv4_filtering>"): (
        "test_devices.test_what_of_a_card_changes_in_place_and_what_plugs_it_in_anew"
    ),
    **{
        ("Container", f"devices.*.<{setting}>"): "test_devices.test_what_of_a_card_changes_in_place_under_ipv6"
        for setting in ("ipv6.address", "ipv6.routes*", "security.ipv6_filtering")
    },
    (
        "Container",
        "devices.*.size",
    ): "test_devices.test_the_root_disk_changes_in_place_where_lxd_can_and_is_never_taken_away",
    ("Image", "source.**"): "test_objects.test_a_changed_image_moves_the_alias_and_the_old_one_goes",
    ("Image", "identity"): "test_objects.test_a_changed_image_moves_the_alias_and_the_old_one_goes",
    ("Profile", "devices.**"): "test_objects.test_a_profile_restarts_nobody",
    ("Project", "config.<limits.*>"): "test_effects.test_a_projects_limits_and_restrictions_act_at_once",
    ("Project", "config.<restricted*>"): "test_effects.test_a_projects_limits_and_restrictions_act_at_once",
    ("StoragePool", "config.<btrfs.*>"): "test_btrfs.test_a_volume_on_btrfs_comes_grows_and_goes_under_its_user",
    ("Volume", "config.<security.shifted>"): "test_effects.test_how_a_volume_is_mapped_acts_at_the_next_start",
    ("Volume", "config.<security.unmapped>"): "test_effects.test_how_a_volume_is_mapped_acts_at_the_next_start",
}

_CLOUD_INIT = "the guests made here run no cloud-init; LXD itself only notes a new instance-id"
_POOLS = "this kernel has neither device-mapper nor ZFS, and there is no Ceph here"
CANNOT = {
    ("Container", "cloudInit.**"): _CLOUD_INIT,
    **{
        ("Container", f"config.<{name}>"): _CLOUD_INIT
        for name in (
            "user.meta-data",
            "user.network-config",
            "user.user-data",
            "user.vendor-data",
            "cloud-init.network-config",
            "cloud-init.user-data",
            "cloud-init.vendor-data",
        )
    },
    ("Container", "lifetime"): "nothing happens to the guest: what it leads to is shown in tests/e2e/test_lifetime.py",
    ("Container", "config.<limits.disk.priority>"): "this kernel has no blkio.weight",
    ("Container", "config.<limits.hugepages.*>"): "this kernel has no hugetlb cgroup",
    ("Container", "config.<limits.network.priority>"): "this kernel has no net_prio cgroup",
    ("Container", "config.<nvidia.*>"): "there is no such card",
    ("Container", "devices.*.<size.state>"): "for virtual machines and migrations",
    ("Container", "devices.*.<security.acls*>"): "cards have them in OVN networks only, and there is no OVN here",
    ("Image", "type"): "an image of another type is another image for another kind of guest: held before LXD is asked",
    ("Network", "type"): "the other types need a second card, or OVN",
    ("Network", "config.<fan.*>"): "needs a kernel with Ubuntu's fan patches",
    ("Network", "config.<security.acls*>"): "needs an ACL, which no kind declares",
    ("Network", "config.<tunnel.*>"): "this kernel has neither gre nor vxlan",
    ("Network", "config.<maas.*>"): "needs a MAAS server",
    ("StoragePool", "config.<lvm.*>"): _POOLS,
    ("StoragePool", "config.<zfs.*>"): _POOLS,
    ("StoragePool", "config.<ceph.*>"): _POOLS,
    ("StoragePool", "config.<cephfs.*>"): _POOLS,
    ("Volume", "config.<zfs.*>"): _POOLS,
    ("Volume", "config.<lvm.*>"): _POOLS,
    ("Host", "lxd.**"): "a Host is where we look: nothing of it is changed",
}


def proven() -> set[tuple[str, str]]:
    rows = {("Container", row.pattern) for row in ROWS} | {("Container", one) for one in VIRTUAL_MACHINES_ONLY}
    return rows | {(row.kind, row.pattern) for row in PLAIN} | HELD.keys() | ELSEWHERE.keys()


def test_every_row_is_proven_or_it_is_said_why_not() -> None:
    rows = {(kind, pattern) for kind, table in TABLE.items() for pattern in table}
    # A profile's keys are those of its containers: proven together, by test_rows_of_a_profile_….
    of_profiles = {(kind, one) for kind, one in rows if kind == "Profile" and one.startswith("config.")}
    assert rows - of_profiles == proven() | CANNOT.keys()
    assert not proven() & CANNOT.keys()


def test_what_is_proven_elsewhere_is_there() -> None:
    for test in ELSEWHERE.values():
        file, _, function = test.partition(".")
        tree = ast.parse(Path(__file__).with_name(f"{file}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
