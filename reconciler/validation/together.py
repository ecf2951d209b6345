"""VALIDATE: what is wrong between documents: two of one name, two that need the same thing of the host."""

from __future__ import annotations

import ipaddress
import os.path
import re
from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.desired import AUTO, LOCAL_HOST, ResourceId
from reconciler.manifest import STDIN, Document, Path, locate
from reconciler.problems import Problem
from reconciler.validation.findings import field_path, subject_of

_FOUND = re.compile(r"(.+)-\d{1,5}")


def check_set(documents: Sequence[Document]) -> list[Problem]:
    """Every problem between documents, each of which is right by itself."""
    named, problems = _by_name(documents)
    problems += _same_guest_names(named)
    problems += _renamings(named)
    problems += _machine_hosts(named)
    problems += _found_ports(named)
    for claims in (_subnets(documents), _disk_paths(documents), _macs(documents)):
        problems += _clashes(claims)
    problems += _listeners(named)
    return problems


Named = dict[tuple[str, str], Document]
Claim = tuple[Any, Document, Path, str]
"""What is claimed (equal when it clashes), by whom, at which path, and what to call it."""


def _by_name(documents: Sequence[Document]) -> tuple[Named, list[Problem]]:
    named: Named = {}
    problems = []
    for document in documents:
        data = document.data
        key = (data["kind"], data["metadata"]["name"])
        first = named.setdefault(key, document)
        if first is not document:
            problems.append(_second(document, first))
    return named, problems


def _second(document: Document, first: Document) -> Problem:
    subject = subject_of(document.data)
    mark, other = locate(document, ("metadata", "name")), locate(first, ("metadata", "name"))
    return Problem(f"declared for the second time; the first is at {other}", mark, subject, hint="keep one of them")


def _same_guest_names(named: Named) -> Iterator[Problem]:
    """Guests are called by their bare names on the command line."""
    for (kind, name), document in named.items():
        if kind == "Container" and (machine := named.get(("VirtualMachine", name))) is not None:
            other = locate(machine, ("metadata", "name"))
            yield Problem(
                f'there is a VirtualMachine named "{name}" as well, at {other}',
                locate(document, ("metadata", "name")),
                subject_of(document.data),
                hint="give each guest a name of its own",
            )


def _renamings(named: Named) -> Iterator[Problem]:
    taken: dict[tuple[str, str], Document] = {}
    for (kind, _name), document in named.items():
        former = document.data["metadata"].get("renamedFrom")
        if former is None:
            continue
        path: Path = ("metadata", "renamedFrom")
        if (still := named.get((kind, former))) is not None:
            summary = f"{kind}/{former} is declared itself, at {still.mark}"
            yield _at(document, path, summary, "one resource cannot be two")
        elif (other := taken.setdefault((kind, former), document)) is not document:
            yield _at(
                document,
                path,
                f"{subject_of(other.data)} comes from {former} already, at {other.mark}",
                "keep one of them",
            )


def _machine_hosts(named: Named) -> Iterator[Problem]:
    """A VM that hosts LXD gives a Host of its own name, which must not be another LXD as well."""
    for (kind, name), document in named.items():
        if kind != "VirtualMachine" or not (document.data.get("spec") or {}).get("lxd"):
            continue
        host = named.get(("Host", name))
        inside = host.data["spec"]["lxd"].get("virtualMachine") if host is not None else name
        if name == LOCAL_HOST or inside != name:
            other = f"Host/{name} at {host.mark}" if host is not None else f"Host/{name}, which is this machine's LXD"
            yield _at(document, ("spec", "lxd"), f"would give a Host that there is already: {other}", "rename the VM")


def _found_ports(named: Named) -> Iterator[Problem]:
    """What ``port: auto`` finds is called by its name and the port: nothing else may be called so."""
    for (kind, name), document in named.items():
        follower = named.get((kind, _follower(name)))
        if kind == "PortForward" and follower is not None and _is_follower(follower):
            summary = f"so is called what PortForward/{_follower(name)}, at {follower.mark}, may find (port: auto)"
            yield _at(document, ("metadata", "name"), summary, "give it a name that does not end so")


def _follower(name: str) -> str:
    """``web`` for ``web-8080``; nothing for a name that ends otherwise."""
    found = _FOUND.fullmatch(name)
    return found[1] if found else ""


def _is_follower(document: Document) -> bool:
    return bool(document.data["spec"].get("port") == AUTO)


def _at(document: Document, path: Path, summary: str, hint: str) -> Problem:
    return Problem(f"{field_path(path)}: {summary}", locate(document, path), subject_of(document.data), hint=hint)


def _clashes(claims: Iterator[Claim]) -> Iterator[Problem]:
    first: dict[Any, Claim] = {}
    for claim in claims:
        what, document, path, words = claim
        earlier = first.setdefault(what, claim)
        if earlier is not claim:
            other = f"{subject_of(earlier[1].data)} at {locate(earlier[1], earlier[2])}"
            yield _at(document, path, f"{words} is that of {other}", "give each its own")


def _of_kind(documents: Sequence[Document], kind: str) -> Iterator[tuple[Document, dict[str, Any]]]:
    for document in documents:
        if document.data["kind"] == kind:
            yield document, document.data.get("spec") or {}


def _subnets(documents: Sequence[Document]) -> Iterator[Claim]:
    """Networks of one host with the same subnet."""
    for document, spec in _of_kind(documents, "Network"):
        for version in ("ipv4", "ipv6"):
            address = spec.get(version, {}).get("address", "auto")
            if "/" in address:
                subnet = str(ipaddress.ip_interface(address).network)
                host = spec.get("host", "local")
                yield (host, subnet), document, ("spec", version, "address"), f"the subnet {subnet}"


def _disk_paths(documents: Sequence[Document]) -> Iterator[Claim]:
    """A disk that is written to belongs to one machine: two writers destroy it, and a reader sees it change."""
    readers: list[Claim] = []
    written = set()
    for claim, writes in _disks(documents):
        if writes:
            written.add(claim[0])
            yield claim
        else:
            readers.append(claim)
    yield from (claim for claim in readers if claim[0] in written)


def _disks(documents: Sequence[Document]) -> Iterator[tuple[Claim, bool]]:
    """Every path that somebody has as a disk, and whether it is written to."""
    for document, spec in _of_kind(documents, "Disk"):
        if "path" in spec:
            place = _absolute(document, spec["path"])
            yield (place, document, ("spec", "path"), place), True
    for document, spec in _of_kind(documents, "VirtualMachine"):
        for index, disk in enumerate(spec.get("disks", ())):
            if "path" in disk:
                place = _absolute(document, disk["path"])
                yield (place, document, ("spec", "disks", index, "path"), place), not disk.get("readOnly")


def _absolute(document: Document, path: str) -> str:
    folder = os.path.dirname(os.path.abspath(document.file)) if document.file != STDIN else os.getcwd()
    return os.path.normpath(os.path.join(folder, path))


def _macs(documents: Sequence[Document]) -> Iterator[Claim]:
    for document, spec in _of_kind(documents, "VirtualMachine"):
        for index, nic in enumerate(spec.get("nics", ())):
            if "mac" in nic:
                yield nic["mac"].lower(), document, ("spec", "nics", index, "mac"), nic["mac"]


def _listeners(named: Named) -> Iterator[Problem]:
    """Two that would listen on one port of one machine: forwarded ports, and raw proxy devices of containers.

    An address that stands for all (``0.0.0.0``, ``::``) clashes with every other one there.
    """
    places: dict[tuple[str, str, int], list[tuple[str, Document, Path]]] = {}
    for place, protocol, address, port, document, path in _ports(named):
        earlier = places.setdefault((place, protocol, port), [])
        clash = next((one for one in earlier if _same_address(one[0], address)), None)
        earlier.append((address, document, path))
        if clash is not None:
            other = f"{subject_of(clash[1].data)} at {locate(clash[1], clash[2])}"
            listen = f"{f'[{address}]' if ':' in address else address}:{port} ({protocol})"
            yield _at(document, path, f"{listen} is that of {other}", "give each its own")


def _same_address(one: str, other: str) -> bool:
    everywhere = {"::": True, "0.0.0.0": ":" not in one + other}  # noqa: S104  compared with, never bound
    return one == other or everywhere.get(one, False) or everywhere.get(other, False)


def _ports(named: Named) -> Iterator[tuple[str, str, str, int, Document, Path]]:
    """Machine, protocol, address, port, and where that is written."""
    for (kind, _name), document in named.items():
        spec = document.data.get("spec") or {}
        if kind == "PortForward":
            for address, port in _sockets(spec["listen"]):  # this machine listens, wherever its guest is
                yield LOCAL_HOST, spec.get("protocol", "tcp"), address, port, document, ("spec", "listen")
        elif kind == "Container":
            for name, device in (spec.get("devices") or {}).items():
                protocol, _, listen = str(device.get("listen", "")).partition(":")
                if device.get("type") == "proxy" and device.get("bind", "host") == "host":
                    for address, port in _sockets(listen):
                        path = ("spec", "devices", name, "listen")
                        yield _machine(named, document), protocol, address, port, document, path


def _sockets(listen: str) -> Iterator[tuple[str, int]]:
    """Address and ports of ``127.0.0.1:80`` or ``[::]:80-90,100``; nothing where it is something else."""
    given, _, ports = listen.rpartition(":")
    try:
        address = str(ipaddress.ip_address(given.strip("[]")))
        for part in ports.split(","):
            first, _, last = part.partition("-")
            for port in range(int(first), min(int(last or first), 65535) + 1):
                yield address, port
    except ValueError:
        return


def claims(document: Document) -> set[Any]:
    """What of this document could clash with another one, but for its own name: compared less exactly than
    ``check_set`` does, never more. One of them is its former name, as a ResourceId."""
    data, alone = document.data, [document]
    found: set[Any] = {claim[0][1] for claim in _subnets(alone)} | {claim[0] for claim in _macs(alone)}
    found |= {claim[0] for claim, _ in _disks(alone)}
    key = (data["kind"], data["metadata"]["name"])
    found |= {(protocol, port) for _, protocol, _, port, _, _ in _ports({key: document})}
    if data["kind"] == "PortForward" and (follower := key[1] if _is_follower(document) else _follower(key[1])):
        found.add((AUTO, follower))
    former = data["metadata"].get("renamedFrom")
    return found if former is None else {*found, ResourceId(data["kind"], former)}


def _machine(named: Named, guest: Document) -> str:
    """Whose ports the guest's host has: this machine's unless the Host is another one, or inside of a VM."""
    name = (guest.data.get("spec") or {}).get("host", LOCAL_HOST)
    host = named.get(("Host", name))
    lxd = host.data["spec"]["lxd"] if host is not None else {}
    elsewhere = "url" in lxd or "virtualMachine" in lxd or (host is None and ("VirtualMachine", name) in named)
    return name if elsewhere and name != LOCAL_HOST else LOCAL_HOST
