"""POLICY, before RESOLVE hands over: what reaches the host's own power needs leave in the administrator's file.

Not a manifest: ``/etc/reconciler/policy.yaml`` for root, else ``$XDG_CONFIG_HOME/reconciler/policy.yaml``. Inside a VM,
which is the security boundary, nesting and the like need no leave; to be privileged does everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.attachments import place
from reconciler.desired import ATTACHMENTS, LOCAL_HOST, Desired
from reconciler.manifest import Document, locate
from reconciler.policy.file import Policy, load, path
from reconciler.policy.guests import check_container, check_machine
from reconciler.policy.images import check_image
from reconciler.policy.infrastructure import (
    check_network,
    check_pool,
    check_port_forward,
    check_profile,
    check_project,
)
from reconciler.policy.storage import check_device, check_disk, check_share, check_volume
from reconciler.policy.wishes import Wishes
from reconciler.problems import Problem

__all__ = ["AROUND", "Around", "Policy", "check", "load", "looks_at_host", "path"]

Check = Callable[[Wishes], None]
_BY_KIND: Mapping[str, Check] = {
    "Container": check_container,
    "VirtualMachine": check_machine,
    "Image": check_image,
    "Network": check_network,
    "Profile": check_profile,
    "StoragePool": check_pool,
    "Project": check_project,
    "Volume": check_volume,
    "Disk": check_disk,
    "Share": check_share,
    "Device": check_device,
    "PortForward": check_port_forward,
}
_INSIDE_FREE = frozenset(("Network", "StoragePool", "Project", "Volume"))
"""What may do as it likes on a host that is inside of a VM; of Containers and Profiles it is still asked whether they
are privileged, and where an image comes from."""
AROUND = frozenset(("Host", "Network", "VirtualMachine")) | ATTACHMENTS
"""What ``Around`` is made of."""


@dataclass(frozen=True, slots=True)
class Around:
    """What the answer about one resource hangs on besides: see ``Wishes``. inside: backends inside of VMs."""

    inside: frozenset[str]
    bridges: frozenset[str]
    carried: frozenset[str]

    @classmethod
    def of(cls, wanted: Collection[Desired]) -> Around:
        """Of all that is wanted."""
        return cls(
            frozenset(f"lxd/{name}" for name in hosts_inside(wanted)),
            frozenset(want.id.name for want in wanted if want.id.kind == "Network"),
            frozenset(place("Container", want.id)[1] for want in wanted if want.id.kind in ATTACHMENTS),
        )

    def allows(self, other: Around) -> bool:
        """Whether whatever is allowed with the other is allowed with this."""
        return self.inside == other.inside and self.bridges >= other.bridges and self.carried >= other.carried


def check(
    desired: Iterable[Desired], policy: Policy, documents: Iterable[Document] = (), around: Around | None = None
) -> list[Problem]:
    """Everything that is wanted and not allowed, each with what the policy file would have to say.

    documents: where the desired came from, to point at the field; without them problems point at the resource.
    around: of all that is wanted, when ``desired`` is a part of it.
    """
    wanted = list(desired)
    found: dict[tuple[str, str], Document] = {
        (document.data["kind"], document.data["metadata"]["name"]): document for document in documents
    }
    problems: list[Problem] = []
    for wishes in _wishes(wanted, policy, around or Around.of(wanted)):
        want = wishes.want
        document = found.get((want.id.kind, want.id.name))
        problems += [_problem(want, document, *one) for one in wishes.refused]
    return problems


def looks_at_host(desired: Iterable[Desired], policy: Policy) -> bool:
    """Whether the answer hangs on files of the host (links, devices), so that it can be another one tomorrow."""
    wanted = list(desired)
    return any(wishes.looked for wishes in _wishes(wanted, policy, Around.of(wanted)))


def _wishes(wanted: Sequence[Desired], policy: Policy, around: Around) -> Iterator[Wishes]:
    """Every resource that has been in front of the policy."""
    for want in wanted:
        is_inside = want.backend in around.inside
        if want.id.kind not in _BY_KIND or (is_inside and want.id.kind in _INSIDE_FREE):
            continue
        wishes = Wishes(want, policy, around.bridges, is_inside, around.carried)
        _BY_KIND[want.id.kind](wishes)
        yield wishes


def hosts_inside(desired: Iterable[Desired]) -> set[str]:
    """The names of Hosts that are inside of a VM: declared as such, or given by a VM with ``lxd: true``.

    A declared Host is what it says, whatever a VM is called; and ``local`` is this very machine.
    """
    declared: set[str] = set()
    inside: set[str] = set()
    given: set[str] = set()
    for want in desired:
        if want.id.kind == "Host":
            (inside if "virtualMachine" in want.spec.get("lxd", {}) else declared).add(want.id.name)
        elif want.id.kind == "VirtualMachine" and want.spec.get("lxd"):
            given.add(want.id.name)
    return inside | (given - declared - {LOCAL_HOST})


def _problem(want: Desired, document: Document | None, where: tuple[str, ...], summary: str, hint: str) -> Problem:
    mark = locate(document, _as_written(document, where)) if document is not None else want.mark
    field = ".".join(where)
    return Problem(f"{field}: {summary}" if field else summary, mark, str(want.id), hint=hint)


def _as_written(document: Document, where: tuple[str, ...]) -> tuple[str | int, ...]:
    """The path in the manifest, where named lists are lists and not mappings."""
    place: list[str | int] = ["spec"]
    here = document.data.get("spec") or {}
    for part in where:
        if isinstance(here, list):
            index = next((at for at, one in enumerate(here) if isinstance(one, dict) and one.get("name") == part), 0)
            place.append(index)
            here = here[index] if here else None
        else:
            place.append(part)
            here = here.get(part) if isinstance(here, dict) else None
    return tuple(place)
