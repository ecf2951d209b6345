"""POLICY: one resource in front of the policy: what it is asked, and what was refused."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from reconciler.desired import Desired
from reconciler.paths import state_dir
from reconciler.policy.file import Policy

Where = tuple[str, ...]

_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"),
    *("/var/lib", "/var/log", "/var/run", "/var/snap", "/var/spool"),
)
"""The host itself: whatever lies there needs a root of its own in the policy, whoever asks."""
KERNELS = ("/boot", "/usr/lib", "/lib/modules", "/vmlinuz", "/initrd.img")
"""Where distributions keep kernels: reading those gives nobody power."""


@dataclass(slots=True)
class Wishes:
    """bridges: of declared Networks; inside: on a host inside of a VM; refused: where, summary, hint;
    carried: devices that stand for a declared Share, Device or PortForward, each of which is asked itself;
    looked: whether the host's files had to be looked at, which can be others tomorrow."""

    want: Desired
    policy: Policy
    bridges: frozenset[str] = frozenset()
    inside: bool = False
    carried: frozenset[str] = frozenset()
    refused: list[tuple[Where, str, str]] = field(default_factory=list)
    looked: bool = False

    @property
    def spec(self) -> Mapping[str, Any]:
        """What is wanted, in resolved terms."""
        return self.want.spec

    @property
    def name(self) -> str:
        """The name that the policy would list."""
        return self.want.id.name

    def refuse(self, where: Where, summary: str, leave: str) -> None:
        """leave: the line of the policy that would allow it."""
        self.refused.append((where, f"{summary}: not allowed", f"to allow it, {self.policy.file} has to say: {leave}"))

    def host_path(self, where: Where, given: str, also: Iterable[str] = ()) -> None:
        """A path of the host must lie below a root of the policy, the caller's home or the manifest's own folder."""
        self.looked = True
        really = os.path.realpath(os.path.join(self._folder(), given))
        if really.startswith("/dev/") and not os.path.isdir(really):
            self.device_node(where, really)
        elif not any(is_below(really, root) for root in (*self.policy.roots, *also)) and not self._own(really):
            shown = given if really == given else f"{given} (that is {really})"
            root = really if os.path.isdir(really) else os.path.dirname(really)
            self.refuse(where, f"the host's {shown}", f"shares: {{roots: [{root}]}}")

    def shared_folder(self, where: Where, given: str) -> None:
        """A folder that a guest sees. One that holds our state (the whole home, for instance) has to be a root itself:
        a root above it was not written for that."""
        self.looked = True
        really, state = os.path.realpath(os.path.join(self._folder(), given)), os.path.realpath(state_dir())
        holds_state = is_below(really, state) or is_below(state, really)
        if holds_state and really not in {os.path.realpath(root) for root in self.policy.roots}:
            self.refuse(where, f"the host's {really}, where our own state is", f"shares: {{roots: [{really}]}}")
        else:
            self.host_path(where, given)

    def _folder(self) -> str:
        """The manifest's folder, where relative paths begin."""
        return os.path.dirname(os.path.abspath(self.want.mark.file)) if self.want.mark is not None else os.getcwd()

    def _own(self, really: str) -> bool:
        if any(is_below(really, folder) for folder in (*_SYSTEM, str(state_dir()))) or really == "/":
            return False
        mine = [] if os.geteuid() == 0 else [os.path.expanduser("~")]
        mine.append(self._folder())
        return any(is_below(really, folder) and os.path.realpath(folder) != "/" for folder in mine)

    def device_node(self, where: Where, given: str) -> None:
        """A device node of the host; a link counts by its own name only where root alone makes links."""
        self.looked = True
        really, plain = os.path.realpath(given), os.path.normpath(given)
        shown = plain if plain.startswith("/dev/") else really
        if not allowed(shown, self.policy.unix) and not allowed(really, self.policy.unix):
            self.refuse(where, f"the host's {shown}", f"devices: {{unix: [{shown}]}}")

    def interface(self, where: Where, name: str) -> None:
        """A bridge or interface of the host that is not one of our Networks."""
        if name not in self.bridges and not allowed(name, self.policy.interfaces):
            self.refuse(where, f"the host's interface {name}", f"networks: {{interfaces: [{name}]}}")

    def usb(self, where: Where, device: str) -> None:
        """vendor:product; ``*:*`` for whatever is there."""
        vendor = device.partition(":")[0]
        if not {"any", device, f"{vendor}:*"} & set(self.policy.usb):
            leave = "any" if "*" in device else f'["{device}"]'
            self.refuse(where, f"the USB device {device}", f"devices: {{usb: {leave}}}")

    def pci(self, where: Where, address: str) -> None:
        """An address; nothing for whatever is there."""
        if address not in self.policy.pci:
            self.refuse(
                where, f"the PCI device {address or '(any)'}", f'devices: {{pci: ["{address or "0000:00:02.0"}"]}}'
            )

    def listener(self, where: Where, address: str, loopback_is_free: bool = True) -> None:
        """An address of the host that something outside may talk to."""
        if not (loopback_is_free and is_loopback(address)) and address not in self.policy.listen:
            self.refuse(where, f"listening on {address}", f'listen: ["{address}"]')

    def key(self, where: Where, key: str) -> None:
        """A key or option that reaches beyond the guest."""
        if not allowed(key, self.policy.keys):
            self.refuse(where, "reaches beyond the guest", f'containers: {{keys: ["{key}"]}}')


def allowed(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns matches; ``*`` stands for anything."""
    return bool(patterns) and _compiled(patterns).fullmatch(name) is not None


@lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(pattern).replace(r"\*", ".*") for pattern in patterns), re.DOTALL)


def is_below(path: str, root: str) -> bool:
    """Whether the (real) path is the root or lies below it, links in the root followed."""
    for place in {root.rstrip("/") or "/", os.path.realpath(root)}:
        if path == place or path.startswith(place.rstrip("/") + "/"):
            return True
    return False


def is_loopback(address: str) -> bool:
    """Whether only this host can talk to it."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def is_on(value: Any) -> bool:
    """LXD's idea of true."""
    return str(value).lower() in ("true", "1", "yes", "on")
