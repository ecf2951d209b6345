"""POLICY: the administrator's file, read so that no manifest and nobody else can have written it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.manifest import STDIN, Document, parse, read_trusted
from reconciler.problems import ManifestError, Mark, Problem
from reconciler.validation.accept import validator
from reconciler.validation.findings import problems_of

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed. The default allows nothing that reaches beyond a guest.

    file: where it is, or would be · roots: folders of the host · privileged, nesting: containers and profiles ·
    keys: LXD configuration keys · unix, pci: device nodes and addresses · usb: vendor:product, or "any" among them ·
    interfaces: of the host · servers: of images, None for any · listen: addresses beyond loopback ·
    commands: whether a recipe may run commands on this host while it makes an image.
    secret_commands, secret_files, secret_variables: where secrets may come from (the latter two: for what is from Git).
    Names, keys, device nodes, interfaces and where secrets come from may hold ``*``.
    """

    file: str
    roots: Names = ()
    privileged: Names = ()
    nesting: Names = ()
    keys: Names = ()
    unix: Names = ()
    pci: Names = ()
    usb: Names = ()
    interfaces: Names = ()
    unpinned: bool = False
    servers: Names | None = None
    listen: Names = ()
    commands: bool = False
    secret_commands: Names = ()
    secret_files: Names = ()
    secret_variables: Names = ()


def path() -> str:
    """Where the policy of whoever calls is."""
    if os.geteuid() == 0:
        return "/etc/reconciler/policy.yaml"
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "reconciler", "policy.yaml")


def load(documents: Iterable[Document | str] = (), file: str | None = None) -> Policy:
    """The policy; the default one when there is no file. Raises ManifestError when it cannot be trusted or is wrong.

    documents: the manifests being applied, or the names of their files; a policy among them would be theirs to write.
    """
    place = file or path()
    content = read_trusted(place)
    if content is None:
        return Policy(place)
    files = {one if isinstance(one, str) else one.file for one in documents} - {STDIN}
    for folder in {os.path.dirname(os.path.abspath(one)) for one in files}:
        if _is_in_tree(os.path.realpath(place), os.path.realpath(folder)):
            hint = "keep manifests and the policy in different folders"
            raise ManifestError(
                Problem(f"the policy lies among the manifests of {folder}", Mark(place, 1, 1), hint=hint)
            )
    return _read(place, content)


def _is_in_tree(file: str, folder: str) -> bool:
    """Whether a reading of that folder would come by the file (hidden folders are never entered)."""
    if not file.startswith(folder.rstrip("/") + "/"):
        return False
    return not any(part.startswith(".") for part in os.path.relpath(file, folder).split("/"))


def _read(place: str, content: bytes) -> Policy:
    documents = parse(content, place)
    if len(documents) != 1:
        raise ManifestError(Problem("expected one document", Mark(place, 1, 1)))
    document = documents[0]
    if not validator("policy")(document.data):
        from reconciler.validation.explain import explain_as

        raise ManifestError(problems_of(document, explain_as("policy", document.data)))
    return _policy(place, document.data)


def _policy(place: str, data: Mapping[str, Any]) -> Policy:
    def names(part: str, key: str) -> Names:
        given = data.get(part, {}).get(key, ())
        return (given,) if isinstance(given, str) else tuple(given)

    servers = data.get("images", {}).get("servers")
    return Policy(
        file=place,
        roots=names("shares", "roots"),
        privileged=names("containers", "privileged"),
        nesting=names("containers", "nesting"),
        keys=names("containers", "keys"),
        unix=names("devices", "unix"),
        pci=names("devices", "pci"),
        usb=names("devices", "usb"),
        interfaces=names("networks", "interfaces"),
        unpinned=data.get("images", {}).get("unpinned", False),
        servers=None if servers is None else tuple(servers),
        listen=tuple(data.get("listen", ())),
        secret_commands=names("secrets", "commands"),
        secret_files=names("secrets", "files"),
        secret_variables=names("secrets", "environment"),
        commands=data.get("images", {}).get("commands", False),
    )
