"""VALIDATE: what is wrong between documents: two of one name, two that need the same thing of the host."""

from __future__ import annotations

import ipaddress
import os.path
from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.manifest import STDIN, Document, Path, locate
from reconciler.model import LOCAL_HOST
from reconciler.problems import Problem
from reconciler.validation.findings import field_path, subject_of


def check_set(documents: Sequence[Document]) -> list[Problem]:
    """Every problem between documents, each of which is right by itself."""
    named, problems = _by_name(documents)
    problems += _same_guest_names(named)
    problems += _renamings(named)
    problems += _machine_hosts(named)
    for claims in (_subnets(documents), _disk_paths(documents), _macs(documents), _listeners(documents)):
        problems += _clashes(claims)
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
    """Two writers on one disk destroy it."""
    for document, spec in _of_kind(documents, "Disk"):
        if "path" in spec:
            place = _absolute(document, spec["path"])
            yield place, document, ("spec", "path"), place
    for document, spec in _of_kind(documents, "VirtualMachine"):
        for index, disk in enumerate(spec.get("disks", ())):
            if "path" in disk and not disk.get("readOnly"):
                place = _absolute(document, disk["path"])
                yield place, document, ("spec", "disks", index, "path"), place


def _absolute(document: Document, path: str) -> str:
    folder = os.path.dirname(os.path.abspath(document.file)) if document.file != STDIN else os.getcwd()
    return os.path.normpath(os.path.join(folder, path))


def _macs(documents: Sequence[Document]) -> Iterator[Claim]:
    for document, spec in _of_kind(documents, "VirtualMachine"):
        for index, nic in enumerate(spec.get("nics", ())):
            if "mac" in nic:
                yield nic["mac"].lower(), document, ("spec", "nics", index, "mac"), nic["mac"]


def _listeners(documents: Sequence[Document]) -> Iterator[Claim]:
    for document, spec in _of_kind(documents, "PortForward"):
        what = (spec["listen"], spec.get("protocol", "tcp"))
        yield what, document, ("spec", "listen"), f"{spec['listen']} ({what[1]})"
