"""The words of the flow's first half: what resources are called, and how one is wanted.

Apart from the other words (see model, which has these as well): checking manifests needs no more than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.problems import Mark

Json = Any
Spec = Mapping[str, Any]

GUESTS = frozenset({"VirtualMachine", "Container"})
DATA_BEARING = frozenset({"Disk", "Volume"})
ATTACHMENTS = frozenset({"Share", "Device", "PortForward"})
"""Kinds without an object of their own: they are what they add to their guests' specs (see attachments)."""
MOST_PLUGGED = 96
"""How many disks, network cards, shares and devices one machine takes: each needs a port, and ports are not endless."""
AUTO = "auto"
"""The port of a PortForward that follows what listens in its guest."""
LOCAL_HOST = "local"
QEMU = "qemu"


def lxd_backend(host: str) -> str:
    """The backend name that serves ``Host/<host>``."""
    return f"lxd/{host}"


@dataclass(frozen=True, slots=True, order=True)
class ResourceId:
    """Kind and name; prints as people write it: ``Container/web``.

    An image that is needed on another host than ``local`` has one id a host: ``Image/busybox@far``.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    def __hash__(self) -> int:
        return hash(self.name)  # few share one, and a look at a thousand resources asks a hundred thousand times

    @classmethod
    def parse(cls, text: str) -> ResourceId:
        """Read ``Kind/name``; ValueError when it is not of that form."""
        kind, slash, name = text.partition("/")
        if not (kind and slash and name):
            raise ValueError(f'expected Kind/name such as "Container/web", got "{text}"')
        return cls(kind, name)


@dataclass(frozen=True, slots=True)
class Desired:
    """One resource as the manifests want it, every reference resolved and every default filled in.

    needs:    declared resources that must be there first
    expects:  resources that are referred to but not declared; they must exist already
    payload:  sha256 → bytes, the contents behind ``spec["files"]`` (never recorded, never shown)
    recipes:  of those that hold secrets: digest → how to make them again (see secrets), for a plan that is saved
    later:    the whole wanted spec while parts of it wait for a restart (``spec`` is then what is to be so now);
              None when nothing waits
    users:    how the declared resources are wanted that need this one, for a step that touches them (a network moves)
    """

    id: ResourceId
    backend: str
    spec: Spec
    needs: tuple[ResourceId, ...] = ()
    expects: tuple[ResourceId, ...] = ()
    mark: Mark | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    renamed_from: ResourceId | None = None
    payload: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    recipes: Mapping[str, Json] = field(default_factory=dict, repr=False)
    later: Spec | None = None
    users: Mapping[ResourceId, Spec] = field(default_factory=dict, repr=False)
