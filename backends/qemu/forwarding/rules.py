"""APPLY and OBSERVE, on both sides of the forwarder's control socket: one forwarded port in one line of words."""

from __future__ import annotations

from typing import NamedTuple

ANY = "*"
"""Wherever the host has seen the card."""


class Rule(NamedTuple):
    """protocol: tcp or udp; listen: address:port on this host; port: in the guest; mac: the card behind which the guest
    is; device: the bridge that it is on
    """

    protocol: str
    listen: str
    port: int
    mac: str
    device: str

    @property
    def key(self) -> str:
        """What no two rules share."""
        return f"{self.protocol} {self.listen}"

    def __str__(self) -> str:
        return f"{self.key} {self.port} {self.mac} {self.device}"


def parse(line: str) -> Rule:
    """Back from its line. Raises ValueError."""
    protocol, listen, port, mac, device = line.split(" ")
    return Rule(protocol, listen, int(port), mac, device)
