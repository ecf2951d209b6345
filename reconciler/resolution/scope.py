"""RESOLVE: what every kind's resolver works with: the documents by name, the problems found, references to others."""

from __future__ import annotations

import hashlib
import json
import os.path
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler import schema
from reconciler.composition import Template, recipe
from reconciler.desired import LOCAL_HOST, QEMU, Desired, Json, ResourceId, lxd_backend
from reconciler.manifest import Document, Path, locate
from reconciler.problems import ManifestError, Problem
from reconciler.quantities import duration, size

_HAS_HOST = frozenset({"Container", "Network", "Profile", "StoragePool", "Project", "Volume"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a manifest may point at outside of itself.

    read:    (path, folder of the manifest, …) → contents of a file for ``files``; ManifestError when it cannot be had
    stamp:   absolute path → something that changes when the local file changes; OSError when it is not there
    remotes: the LXD client's remotes: name → {server, protocol}
    secret:  what a text with secrets is made of → a digest that tells nothing, and its bytes; ManifestError when it
             cannot be had
    on_disk: whether the manifests lie on this machine: else no relative path leads to anything of it
    node:    absolute path → what sort of device node it is, ``char`` or ``block``; None when it is none, or not there
    """

    read: Callable[[str, str], bytes]
    stamp: Callable[[str], str]
    remotes: Mapping[str, Mapping[str, str]]
    node: Callable[[str], str | None] = lambda _path: None
    secret: Callable[[Template], tuple[str, bytes]] = lambda _parts: ("", b"")
    on_disk: bool = True


@dataclass(slots=True)
class Scope:
    """One resolution. attached: guest → part of its spec → what Disks, Shares … add there, by name;
    mounted: guest → its paths that are taken, and by what;
    alike: VM → USB ids → the Devices of it, and of what is in it, that have these ids;
    passages: VM → protocol, port inside → the PortForward that has it;
    recipes: guest → digest → what a file with secrets is made of;
    image_hosts: image → the hosts that need it; identities: image → the digest of its source, once it was computed."""

    documents: dict[ResourceId, Document]
    surroundings: Surroundings
    problems: list[Problem] = field(default_factory=list)
    image_hosts: dict[str, set[str]] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    inline_images: dict[str, tuple[str, Mapping[str, Any], Document]] = field(default_factory=dict)
    attached: dict[ResourceId, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)
    mounted: dict[ResourceId, dict[str, str]] = field(default_factory=dict)
    recipes: dict[ResourceId, dict[str, Json]] = field(default_factory=dict)
    alike: dict[ResourceId, dict[tuple[str, str], list[Document]]] = field(default_factory=dict)
    passages: dict[ResourceId, dict[tuple[str, int], Document]] = field(default_factory=dict)

    @classmethod
    def of(cls, documents: Iterable[Document], surroundings: Surroundings) -> Scope:
        """A scope over these documents; that names are unique was checked by validation."""
        return cls({document_id(one): one for one in documents}, surroundings)

    def problem(
        self, document: Document | None, path: Sequence[str | int], summary: str, hint: str | None = None
    ) -> None:
        """Note a problem at the place that ``path`` names in the document."""
        mark = locate(document, tuple(path)) if document is not None else None
        subject = str(document_id(document)) if document is not None else None
        self.problems.append(Problem(summary, mark, subject, hint=hint))

    def attach(self, guest: ResourceId, part: str, name: str, entry: dict[str, Any]) -> None:
        """Add an entry to a part of the guest's spec (``disks``, ``devices`` …)."""
        self.attached.setdefault(guest, {}).setdefault(part, {})[name] = entry

    def claim_path(self, document: Document, place: Sequence[str | int], guest: ResourceId, path: str) -> None:
        """Note what stands at a path of the guest; a problem when something stands there already."""
        taken = self.mounted.setdefault(guest, {})
        if not taken and guest.kind == "Container":
            raw = (self.documents[guest].data.get("spec") or {}).get("devices") or {}
            paths = {name: one.get("path") or one.get("source") for name, one in raw.items()}
            taken.update({_plain(one): f'its device "{name}"' for name, one in paths.items() if isinstance(one, str)})
        mine = str(document_id(document))
        other = taken.setdefault(_plain(path), mine)
        if other is not mine:
            summary = f"{guest} has {other} at {path}"
            self.problem(document, place, f"{place[-1]}: {summary}", "give each a path of its own")

    def spec(self, document: Document) -> dict[str, Any]:
        """The spec with the schema's defaults filled in, and what is common to all kinds brought into form."""
        spec = {**schema.defaults(document.data["kind"]), **(document.data.get("spec") or {})}
        for switch in ("protect", "tpm"):  # what is off is not there
            if not spec.get(switch, True):
                del spec[switch]
        return spec

    def refer(self, document: Document, path: Sequence[str | int], id: ResourceId) -> Document | None:
        """The declared resource of that id; a problem with did-you-mean when there is none."""
        if (found := self.documents.get(id)) is not None:
            return found
        import difflib

        names = [other.name for other in self.documents if other.kind == id.kind]
        near = difflib.get_close_matches(id.name, names, n=1)
        hint = f'did you mean "{near[0]}"?' if near else _declared(id.kind, names)
        self.problem(document, path, f'{_last(path)}: there is no {id.kind} named "{id.name}"', hint)
        return None

    def reference(
        self, document: Document, path: Sequence[str | int], text: str, kinds: Sequence[str]
    ) -> ResourceId | None:
        """Read ``Kind/name`` that must be one of these kinds and declared."""
        try:
            id = ResourceId.parse(text)
        except ValueError as error:
            self.problem(document, path, f"{_last(path)}: {error}")
            return None
        if id.kind not in kinds:
            self.problem(document, path, f"{_last(path)}: expected {' or '.join(kinds)}, got {id.kind}")
            return None
        return id if self.refer(document, path, id) is not None else None

    def host_of(self, document: Document) -> str:
        """The name of the host that the resource lives on."""
        host = (document.data.get("spec") or {}).get("host", LOCAL_HOST)
        return host if isinstance(host, str) else LOCAL_HOST

    def machine_of(self, document: Document) -> ResourceId | None:
        """The declared VM whose LXD the resource lives on; None when it is on another LXD. A declared Host is what it
        says, whatever a VM is called."""
        name = self.host_of(document)
        host = self.documents.get(ResourceId("Host", name))
        if host is not None:
            name = (host.data["spec"].get("lxd") or {}).get("virtualMachine", "")
        elif name == LOCAL_HOST:
            return None
        id = ResourceId("VirtualMachine", name)
        machine = self.documents.get(id)
        return id if machine is not None and (host is not None or hosts_lxd(machine)) else None

    def check_host(self, document: Document) -> tuple[ResourceId, ...]:
        """What has to be there for the host to answer; a problem when the host is not known."""
        name = self.host_of(document)
        if (vm := self.documents.get(ResourceId("VirtualMachine", name))) is not None and hosts_lxd(vm):
            return (ResourceId("VirtualMachine", name),)
        if name == LOCAL_HOST and ResourceId("Host", name) not in self.documents:
            return ()
        if self.refer(document, ("spec", "host"), ResourceId("Host", name)) is None:
            return ()
        itself = document_id(document)
        return (ResourceId("Host", name), *(id for id in self.project_on(name) if id != itself))

    def project_on(self, host: str) -> tuple[ResourceId, ...]:
        """The declared Project that the host works in."""
        document = self.documents.get(ResourceId("Host", host))
        name = ((document.data.get("spec") or {}).get("lxd") or {}).get("project") if document is not None else None
        id = ResourceId("Project", name or "")
        return (id,) if id in self.documents else ()

    def declared_on(self, host: str, id: ResourceId) -> bool:
        """Whether it is declared, on that host."""
        document = self.documents.get(id)
        return document is not None and self.host_of(document) == host

    def path(self, document: Document, given: str) -> str:
        """An absolute path; a relative one starts at the manifest's folder."""
        if not self.surroundings.on_disk and not os.path.isabs(given):
            hint = "name an absolute path; only what goes into guests (files, source) is read from the repository"
            self.problem(document, ("spec",), f"{given}: there is no such file on this machine", hint)
        return os.path.normpath(os.path.join(self.folder(document), given))

    def folder(self, document: Document) -> str:
        """The folder of the manifest; the working folder for one that came through a pipe."""
        return os.path.dirname(os.path.abspath(document.file)) if document.file != "-" else os.getcwd()

    def size(self, document: Document, path: Sequence[str | int], value: int | str) -> int:
        """Bytes; validation has seen to the form, so a failure here is a problem all the same, never a crash."""
        try:
            return size(value)
        except ValueError as error:
            self.problem(document, path, f"{_last(path)}: {error}")
            return 0

    def duration(self, document: Document, path: Sequence[str | int], value: float | str) -> float:
        """Seconds; see ``size``."""
        try:
            return duration(value)
        except ValueError as error:
            self.problem(document, path, f"{_last(path)}: {error}")
            return 0

    def read(self, document: Document, path: Sequence[str | int], given: str) -> bytes:
        """The contents of a file beside the manifest; problems are noted, and nothing returned."""
        try:
            return self.surroundings.read(given, self.folder(document))
        except ManifestError as error:
            mark, subject = locate(document, tuple(path)), str(document_id(document))
            self.problems += [replace(problem, mark=mark, subject=subject) for problem in error.problems]
            return b""

    def secret(self, document: Document, path: Path) -> tuple[str, bytes]:
        """The digest and the bytes of the text with secrets at ``path``; problems are noted."""
        parts = document.secrets[path]
        try:
            digest, contents = self.surroundings.secret(parts)
        except ManifestError as error:
            self.problems += [one for one in error.problems if one not in self.problems]
            return "", b""
        self.recipes.setdefault(document_id(document), {})[digest] = recipe(parts)
        return digest, contents

    def desired(
        self,
        document: Document,
        spec: Mapping[str, Any],
        needs: Iterable[ResourceId] = (),
        expects: Iterable[ResourceId] = (),
        payload: Mapping[str, bytes] | None = None,
    ) -> Desired:
        """The finished Desired, for the backend that its kind and host decide."""
        id = document_id(document)
        metadata = document.data["metadata"]
        renamed = metadata.get("renamedFrom")
        needed = set(needs) | (set(self.check_host(document)) if id.kind in _HAS_HOST else set())
        return Desired(
            id,
            lxd_backend(self.host_of(document)) if id.kind in _HAS_HOST else QEMU,
            spec,
            tuple(sorted(needed - {id})),
            tuple(sorted(set(expects))),
            document.mark,
            metadata.get("labels") or {},
            ResourceId(id.kind, renamed) if renamed else None,
            payload or {},
            self.recipes.get(id, {}),
        )


def document_id(document: Document) -> ResourceId:
    """``Kind/name`` of a validated document."""
    return ResourceId(document.data["kind"], document.data["metadata"]["name"])


def hosts_lxd(document: Document) -> bool:
    """Whether this VirtualMachine gives a Host of its own name."""
    return bool((document.data.get("spec") or {}).get("lxd"))


def digest(value: Any) -> str:
    """sha256 of plain data, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def text(value: Any) -> str:
    """A raw LXD value, which is always text there: ``true``, ``500``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _last(path: Sequence[str | int]) -> str:
    """The field that a path ends in, without indexes."""
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _declared(kind: str, names: Sequence[str]) -> str:
    if not names:
        return f"declare one: kind: {kind}"
    return f"declared are: {', '.join(sorted(names)[:8])}"


def _plain(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))
