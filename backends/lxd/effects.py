"""PLAN's data for this backend: what each field's change does to whoever uses the resource, as LXD 5.0 really does it.

Pure data. A key that is not here is UNKNOWN on purpose, and held: harm is never guessed. "Live update" in LXD's own
documentation means that LXD accepts it; where that is not the same as taking effect, this table says restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.effects import Rule, Table
from reconciler.model import Effect

_LIVE = Rule(Effect.LIVE)
_RESTART = Rule(Effect.RESTART)
_REPLACE = Rule(Effect.REPLACE)

_NEXT_START = Rule(Effect.RESTART, "LXD accepts it on a running container, and it acts at its next start")
_CLOUD_INIT = Rule(Effect.RESTART, "a changed cloud-init is a new instance-id: it runs at the next start")
_NEXT_SESSION = Rule(Effect.LIVE, "the running container keeps the old value; exec and the next start see the new one")
_LATER = Rule(Effect.LIVE, "concerns only what LXD does with it later")
_FILES = "written, or removed if it is still what we put; whoever reads it only at its start does not notice"
_PROGRAMS = Rule(Effect.LIVE, "programs that run keep the old one until they start again")
_FIXED = Rule(Effect.IMPOSSIBLE, "LXD cannot change it once it exists")
_VIRTUAL_MACHINE = Rule(Effect.IMPOSSIBLE, "a key for LXD's virtual machines, not for containers")

# Grouped as in LXD's own reference, so that the next version can be laid beside it.
_MISCELLANEOUS = {
    "config.<boot.autostart>": _LATER,
    "config.<boot.autostart.delay>": _LATER,
    "config.<boot.autostart.priority>": _LATER,
    "config.<boot.host_shutdown_timeout>": _LATER,
    "config.<boot.stop.priority>": _LATER,
    "config.<cluster.evacuate>": _LATER,
    "config.<environment.*>": _NEXT_SESSION,
    "config.<linux.kernel_modules>": Rule(Effect.LIVE, "loaded at once; a module is never unloaded"),
    "config.<linux.sysctl.*>": _NEXT_START,
    "config.<user.*>": _LIVE,
    "config.<user.meta-data>": _CLOUD_INIT,
    "config.<user.network-config>": _CLOUD_INIT,
    "config.<user.user-data>": _CLOUD_INIT,
    "config.<user.vendor-data>": _CLOUD_INIT,
    "config.<cloud-init.network-config>": _CLOUD_INIT,
    "config.<cloud-init.user-data>": _CLOUD_INIT,
    "config.<cloud-init.vendor-data>": _CLOUD_INIT,
    "config.<agent.nic_config>": _VIRTUAL_MACHINE,
}
_LIMITS = {
    "config.<limits.cpu>": _LIVE,
    "config.<limits.cpu.allowance>": _LIVE,
    "config.<limits.cpu.priority>": _LIVE,
    "config.<limits.disk.priority>": _LIVE,
    "config.<limits.hugepages.*>": _LIVE,
    "config.<limits.kernel.*>": _NEXT_START,
    "config.<limits.memory>": _LIVE,
    "config.<limits.memory.enforce>": _LIVE,
    "config.<limits.memory.hugepages>": _VIRTUAL_MACHINE,
    "config.<limits.memory.swap>": _LIVE,
    "config.<limits.memory.swap.priority>": _LIVE,
    "config.<limits.network.priority>": _LIVE,
    "config.<limits.processes>": _LIVE,
}
_MACHINERY = {
    "config.<migration.incremental.memory>": _LATER,
    "config.<migration.incremental.memory.goal>": _LATER,
    "config.<migration.incremental.memory.iterations>": _LATER,
    "config.<migration.stateful>": _VIRTUAL_MACHINE,
    "config.<nvidia.*>": _NEXT_START,
    "config.<raw.*>": _NEXT_START,
    "config.<raw.qemu>": _VIRTUAL_MACHINE,
    "config.<raw.qemu.conf>": _VIRTUAL_MACHINE,
    "config.<snapshots.*>": _LATER,
}
_SECURITY = {
    "config.<security.devlxd>": Rule(Effect.LIVE, "the guest's socket to LXD comes and goes at once"),
    "config.<security.devlxd.images>": _LIVE,
    "config.<security.idmap.*>": Rule(Effect.RESTART, "files change their owners on disk at the next start"),
    "config.<security.nesting>": _NEXT_START,
    "config.<security.privileged>": _NEXT_START,
    "config.<security.protection.delete>": _LATER,
    "config.<security.protection.shift>": _LATER,
    "config.<security.syscalls.*>": _NEXT_START,
    "config.<security.agent.metrics>": _VIRTUAL_MACHINE,
    "config.<security.secureboot>": _VIRTUAL_MACHINE,
}

_COLD = Rule(Effect.RESTART, "LXD plugs this type in only before a start")
_ROOT = Rule(Effect.RESTART, "the root disk is looked at before a start")
_PLUGGED = Rule(Effect.LIVE, "taken out and plugged in again: whoever uses it at that moment is cut off")
_IN_PLACE = Rule(Effect.LIVE, "changed as it is, nothing is cut off")
_LEASE = Rule(Effect.LIVE, "changed as it is; the container takes the new address with its next lease")
_IS_COLD: tuple[tuple[Mapping[str, str], Rule], ...] = (
    ({"type": "nic", "nictype": "ipvlan"}, _COLD),
    ({"type": "gpu", "gputype": "mig"}, _COLD),
    ({"type": "disk", "path": "/"}, _ROOT),
    ({"type": "pci"}, Rule(Effect.IMPOSSIBLE, "LXD gives PCI devices to its virtual machines only")),
)

# What LXD changes without taking the device out (UpdatableFields in its source); everything else it plugs in anew.
_DEVICES = {
    "devices.*": Rule(Effect.LIVE, "plugged in or out while it runs", like=_IS_COLD),
    "devices.*.*": _PLUGGED,
    "devices.*.<limits.*>": _IN_PLACE,
    "devices.*.size": Rule(Effect.LIVE, "changed as it is, where the pool enforces sizes at all (a dir pool does not)"),
    "devices.*.<size.state>": _LATER,
    "devices.*.<ipv4.address>": _LEASE,
    "devices.*.<ipv6.address>": _LEASE,
    "devices.*.<ipv4.routes*>": _IN_PLACE,
    "devices.*.<ipv6.routes*>": _IN_PLACE,
    "devices.*.<security.mac_filtering>": _IN_PLACE,
    "devices.*.<security.ipv4_filtering>": _IN_PLACE,
    "devices.*.<security.ipv6_filtering>": _IN_PLACE,
    "devices.*.<security.acls*>": _IN_PLACE,
}

CONTAINER = {
    "power": Rule(Effect.STOP, "the manifest says so"),
    "metadata.name": Rule(Effect.RESTART, "LXD renames only what is stopped"),
    "image.**": Rule(Effect.REPLACE, "a container is made from its image once"),
    "cpus.**": _LIVE,
    "memory.**": Rule(
        Effect.LIVE, less="what is in use is not given back: refused, or the kernel ends what takes most"
    ),
    "profiles": Rule(Effect.RESTART, "a profile may hold anything; some of it acts only at the next start"),
    "nesting": _NEXT_START,
    "privileged": _NEXT_START,
    "cloudInit.**": _CLOUD_INIT,
    **_DEVICES,
    "lifetime": Rule(Effect.LIVE, "who starts and who ends it from now on"),
    "ephemeral": Rule(Effect.LIVE, "concerns what happens when it stops"),
    "files.**": Rule(Effect.LIVE, _FILES),
    "run": Rule(Effect.LIVE, "commands with when: change run now"),
    "user.**": Rule(Effect.LIVE, "whoever is logged in notices at the next login"),
    "timezone": _PROGRAMS,
    "locale": _PROGRAMS,
    **_MISCELLANEOUS,
    **_LIMITS,
    **_MACHINERY,
    **_SECURITY,
}

IMAGE = {
    "source.**": Rule(Effect.LIVE, "the alias moves to the new image; guests follow only with imagePolicy: follow"),
    "identity": Rule(Effect.LIVE, "the alias moves to the new image; guests follow only with imagePolicy: follow"),
    "type": _FIXED,
}

_BRIDGE = Rule(Effect.LIVE, "the bridge is set up again; guests renew their addresses when their lease ends")

NETWORK = {
    "type": Rule(Effect.REPLACE, "LXD cannot turn one type of network into another"),
    "ipv4.**": _BRIDGE,
    "ipv6.**": _BRIDGE,
    "dns.**": _BRIDGE,
    "config.<bgp.*>": _LIVE,
    "config.<bridge.*>": _BRIDGE,
    "config.<bridge.driver>": Rule(Effect.IMPOSSIBLE, "LXD cannot change the driver of a bridge in use"),
    "config.<bridge.mode>": Rule(Effect.IMPOSSIBLE, "LXD cannot change the mode of a bridge in use"),
    "config.<dns.*>": _BRIDGE,
    "config.<fan.*>": _BRIDGE,
    "config.<ipv4.*>": _BRIDGE,
    "config.<ipv6.*>": _BRIDGE,
    "config.<raw.dnsmasq>": _BRIDGE,
    "config.<security.acls*>": _LIVE,
    "config.<tunnel.*>": _BRIDGE,
    "config.<user.*>": _LIVE,
    "config.<maas.*>": _LATER,
}

EACH_NEXT_START = Rule(Effect.LIVE, "containers that use it see it at their next start")
_AT_ONCE = Rule(Effect.LIVE, "acts at once on every container that uses this profile")

# A profile restarts nobody: LXD passes devices on to running containers, and restarts none for the rest.
PROFILE = {
    "description": _LIVE,
    "devices.**": Rule(Effect.LIVE, "LXD changes the devices of the containers that use it at once"),
    **{
        pattern: EACH_NEXT_START if rule.effect is Effect.RESTART else _AT_ONCE if rule is _LIVE else rule
        for pattern, rule in CONTAINER.items()
        if pattern.startswith("config.")
    },
}

STORAGE_POOL = {
    "description": _LIVE,
    "driver": Rule(Effect.IMPOSSIBLE, "a pool keeps its driver; everything in it would be lost"),
    "source": Rule(Effect.IMPOSSIBLE, "a pool stays where it is; everything in it would be lost"),
    "config.<user.*>": _LIVE,
    "config.<rsync.*>": _LATER,
    "config.<volume.*>": Rule(Effect.LIVE, "a default for new volumes"),
    "config.<size>": Rule(Effect.IMPOSSIBLE, "LXD 5.0 grows a pool only by hand"),
    "config.<source>": Rule(Effect.IMPOSSIBLE, "a pool stays where it is; everything in it would be lost"),
    "config.<btrfs.*>": _LATER,
    "config.<lvm.*>": _FIXED,
    "config.<zfs.*>": _FIXED,
    "config.<ceph.*>": _FIXED,
    "config.<cephfs.*>": _FIXED,
}

PROJECT = {
    "description": _LIVE,
    "config.<user.*>": _LIVE,
    "config.<limits.*>": Rule(Effect.LIVE, "refused by LXD when more than that is used already"),
    "config.<restricted*>": Rule(Effect.LIVE, "refused by LXD when something in the project breaks it"),
    "config.<images.*>": _LATER,
    "config.<backups.*>": _LATER,
    "config.<features.*>": Rule(Effect.IMPOSSIBLE, "LXD changes features only while the project is empty"),
}

VOLUME = {
    "pool": Rule(Effect.IMPOSSIBLE, "moving a volume to another pool is not done here: its data would be at stake"),
    "size": Rule(Effect.LIVE, "it grows while it is used; a dir pool only notes the size", Effect.IMPOSSIBLE),
    "config.<size>": Rule(Effect.LIVE, "a dir pool accepts sizes and does not enforce them"),
    "config.<user.*>": _LIVE,
    "config.<snapshots.*>": _LATER,
    "config.<security.shifted>": _NEXT_START,
    "config.<security.unmapped>": _NEXT_START,
    "config.<block.*>": _FIXED,
    "config.<zfs.*>": _FIXED,
    "config.<lvm.*>": _FIXED,
}

HOST = {"lxd.**": Rule(Effect.LIVE, "only where we look; nothing moves")}

TABLE: Table = {
    "Container": CONTAINER,
    "Image": IMAGE,
    "Network": NETWORK,
    "Profile": PROFILE,
    "StoragePool": STORAGE_POOL,
    "Project": PROJECT,
    "Volume": VOLUME,
    "Host": HOST,
}


def rules_of(devices: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str]) -> dict[str, Rule]:
    """Where the devices that an instance has differ from the table, by their type. missing: not there, and why."""
    rules: dict[str, Rule] = {}
    for name, device in devices.items():
        rule = next((rule for fields, rule in _IS_COLD if fields.items() <= device.items()), None)
        if rule is not None:
            rules[f"devices.<{name}>"] = rules[f"devices.<{name}>.*"] = rule
        if rule is _ROOT:
            rules[f"devices.<{name}>.pool"] = Rule(Effect.IMPOSSIBLE, "LXD moves a root disk only with its container")
            rules |= {pattern.replace("*", f"<{name}>", 1): _DEVICES[pattern] for pattern in _ROOT_IN_PLACE}
        if why := missing.get(name):
            rules[f"devices.<{name}>.type"] = Rule(Effect.LIVE, f"{why}, although it is configured: plugged in again")
    return rules


_ROOT_IN_PLACE = ("devices.*.size", "devices.*.<size.state>", "devices.*.<limits.*>")
