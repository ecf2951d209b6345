"""POLICY: raw LXD configuration and devices. What is listed here is harmless; everything else needs leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler.policy.wishes import Where, Wishes, allowed, is_on

Device = Mapping[str, str]

_HARMLESS = (
    *("boot.autostart*", "boot.host_shutdown*", "boot.stop.priority", "cloud-init.*", "cluster.evacuate"),
    *("environment.*", "image.*", "limits.*", "migration.*", "security.protection.*", "snapshots.*", "user.*"),
)
_PRIVILEGED = "security.privileged"
_HARMLESS_OFF = (_PRIVILEGED, "security.nesting", "security.devlxd", "security.devlxd.images")
_OPTIONS_WITH_POWER = {
    "disk": ("raw.mount.options", "shift", "propagation", "ceph.*"),
    "nic": ("ipv4.routes*", "ipv6.routes*", "host_name", "vlan*", "security.acls.default*", "gvrp", "queue.*"),
}
_INTERNAL_DISKS = ("cloud-init:config", "agent:config")


def check_config(wishes: Wishes, config: Mapping[str, str]) -> None:
    """The configuration of a container or profile."""
    for key, value in config.items():
        where = ("config", key)
        if key == _PRIVILEGED:
            check_privileged(wishes, {key: value})
        elif key == "security.nesting" and is_on(value):
            nesting(wishes, where)
        elif key == "security.idmap.isolated" and is_on(value):
            continue
        elif not allowed(key, _HARMLESS) and not (key in _HARMLESS_OFF and not is_on(value)):
            wishes.key(where, key)


def check_privileged(wishes: Wishes, config: Mapping[str, str]) -> None:
    """The one key that needs leave wherever the container is."""
    if is_on(config.get(_PRIVILEGED, "")):
        privileged(wishes, ("config", _PRIVILEGED))


def privileged(wishes: Wishes, where: Where) -> None:
    """Its root is the host's root; inside of a VM that one's, who has all that is led into the VM for others."""
    if not (allowed(wishes.name, wishes.policy.privileged) or allowed(_PRIVILEGED, wishes.policy.keys)):
        whose = "the VM, with all that is led into it for others" if wishes.inside else "the host"
        wishes.refuse(where, f"root in it is root of {whose}", f"containers: {{privileged: [{wishes.name}]}}")


def nesting(wishes: Wishes, where: Where) -> None:
    """Containers inside of it see more of the host."""
    if not (allowed(wishes.name, wishes.policy.nesting) or allowed("security.nesting", wishes.policy.keys)):
        wishes.refuse(where, "it sees more of the host's kernel", f"containers: {{nesting: [{wishes.name}]}}")


def check_devices(wishes: Wishes, devices: Mapping[str, Device]) -> None:
    """The devices of a container or profile."""
    for name, device in devices.items():
        kind = device.get("type", "")
        if (look := _BY_TYPE.get(kind)) is not None:
            look(wishes, ("devices", name), device)
        for option in device:
            if allowed(option, _OPTIONS_WITH_POWER.get(kind, ())):
                wishes.key(("devices", name, option), f"{kind}.{option}")


def _disk(wishes: Wishes, where: Where, device: Device) -> None:
    source = device.get("source")
    if source is None or "pool" in device or source in _INTERNAL_DISKS:
        return
    if source.startswith("/"):
        wishes.host_path((*where, "source"), source)
    else:
        wishes.key((*where, "source"), f"disk.source.{source}")


def _nic(wishes: Wishes, where: Where, device: Device) -> None:
    if "network" in device:
        return
    if "parent" in device:
        wishes.interface((*where, "parent"), device["parent"])
    elif device.get("nictype") not in (None, "p2p"):
        wishes.interface((*where, "nictype"), "*")


def _unix(wishes: Wishes, where: Where, device: Device) -> None:
    if device.get("type") == "unix-hotplug":
        _usb(wishes, where, device)
        return
    given = device.get("source") or device.get("path") or ""
    option = "source" if "source" in device else "path"
    if given.startswith("/"):
        wishes.device_node((*where, option), given)
    else:
        wishes.device_node((*where, "type"), "/dev/*")


def _usb(wishes: Wishes, where: Where, device: Device) -> None:
    wishes.usb(where, f"{device.get('vendorid', '*')}:{device.get('productid', '*')}")


def _pci(wishes: Wishes, where: Where, device: Device) -> None:
    wishes.pci(where, device.get("address") or device.get("pci") or "")


def _infiniband(wishes: Wishes, where: Where, device: Device) -> None:
    wishes.interface((*where, "parent"), device.get("parent", "*"))


def _proxy(wishes: Wishes, where: Where, device: Device) -> None:
    """On the host's side it listens, or (bind: instance) talks to whatever listens there, unix sockets too."""
    on_host = "connect" if device.get("bind") in ("instance", "guest", "container") else "listen"
    protocol, _, rest = device.get(on_host, "").partition(":")
    if on_host == "listen" and protocol in ("tcp", "udp"):
        wishes.listener((*where, "listen"), rest.rpartition(":")[0].strip("[]"), loopback_is_free=False)
    else:
        wishes.key((*where, on_host) if on_host in device else where, f"proxy.{on_host}")


_BY_TYPE: Mapping[str, Callable[[Wishes, Where, Device], None]] = {
    "disk": _disk,
    "nic": _nic,
    "unix-char": _unix,
    "unix-block": _unix,
    "unix-hotplug": _unix,
    "usb": _usb,
    "gpu": _pci,
    "pci": _pci,
    "infiniband": _infiniband,
    "proxy": _proxy,
}
