"""POLICY: networks, profiles, pools, projects and forwarded ports."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.policy.raw import check_config, check_devices, check_privileged
from reconciler.policy.wishes import Wishes, allowed, is_on
from reconciler.sockets import split_listen

_NETWORK = ("ipv4.*", "ipv6.*", "dns.*", "bridge.mtu", "bridge.hwaddr", "bridge.driver", "security.acls", "user.*")
_NETWORK_ROUTES = ("ipv4.routes*", "ipv6.routes*")
_POOL = ("size", "rsync.*", "volume.*", "user.*", "lvm.use_thinpool", "lvm.thinpool_name", "zfs.clone_copy")
_PROJECT = ("features.*", "limits.*", "images.*", "backups.*", "user.*", "restricted*")


def check_profile(wishes: Wishes) -> None:
    """A profile is a container's configuration under another name."""
    if wishes.inside:
        check_privileged(wishes, wishes.spec.get("config", {}))
        return
    check_config(wishes, wishes.spec.get("config", {}))
    check_devices(wishes, wishes.spec.get("devices", {}))


def check_network(wishes: Wishes) -> None:
    """A bridge of its own is fine; one that takes in the host's interfaces or routes is not."""
    for key, value in wishes.spec.get("config", {}).items():
        if key == "bridge.external_interfaces":
            for name in value.replace(" ", "").split(","):
                wishes.interface(("config", key), name.partition("/")[0])
        elif not allowed(key, _NETWORK) or allowed(key, _NETWORK_ROUTES):
            wishes.key(("config", key), key)


def check_pool(wishes: Wishes) -> None:
    """Storage of LXD's own is fine; a path, device or pool of the host is not."""
    spec = wishes.spec
    if "source" in spec:
        _source(wishes, ("source",), spec["source"])
    for key, value in spec.get("config", {}).items():
        if key == "source":
            _source(wishes, ("config", "source"), value)
        elif not allowed(key, _POOL):
            wishes.key(("config", key), key)


def _source(wishes: Wishes, where: tuple[str, ...], given: str) -> None:
    if given.startswith("/"):
        wishes.host_path(where, given)
    elif not allowed(given, wishes.policy.unix):
        wishes.refuse(where, f"the host's storage {given}", f"devices: {{unix: [{given}]}}")


def check_project(wishes: Wishes) -> None:
    """Loosening what restricts a project needs leave."""
    for key, value in wishes.spec.get("config", {}).items():
        loosens = key.startswith("restricted") and not (is_on(value) or value == "block")
        if loosens or not allowed(key, _PROJECT):
            wishes.key(("config", key), key)


def check_port_forward(wishes: Wishes) -> None:
    """Loopback is the caller's own."""
    wishes.listener(("listen",), split_listen(wishes.spec["listen"])[0])


def check_keys(wishes: Wishes, harmless: Iterable[str]) -> None:
    """Configuration in which all but these keys need leave."""
    known = tuple(harmless)
    for key in wishes.spec.get("config", {}):
        if not allowed(key, known):
            wishes.key(("config", key), key)
