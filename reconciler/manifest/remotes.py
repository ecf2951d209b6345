"""LOAD: the image servers by name that LXD's own client knows, so that ``images:debian/12`` is the same.

Nothing but these names is taken from that file; one that is not there, not ours or not readable gives the usual ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property

from reconciler.manifest.reading import MAX_BYTES, read_file
from reconciler.problems import ManifestError

_USUAL = {
    "images": "https://images.lxd.canonical.com",
    "ubuntu": "https://cloud-images.ubuntu.com/releases",
    "ubuntu-daily": "https://cloud-images.ubuntu.com/daily",
    "ubuntu-minimal": "https://cloud-images.ubuntu.com/minimal/releases",
}
_PLACES = ("~/snap/lxd/common/config/config.yml", "~/.config/lxc/config.yml")


class Remotes(Mapping[str, Mapping[str, str]]):
    """name → {server, protocol}; the client's own file wins over the usual names. That is read when they are made, and
    understood when somebody asks for one: few manifests do. Two are equal when these files said the same."""

    def __init__(self, path: str | None = None) -> None:
        places = [path] if path is not None else _PLACES
        self._said = tuple(said for place in places if (said := _read(os.path.expanduser(place))) is not None)

    @cached_property
    def _known(self) -> Mapping[str, Mapping[str, str]]:
        found = {name: {"server": url, "protocol": "simplestreams"} for name, url in _USUAL.items()}
        for said in self._said:
            found.update(_listed(said))
        return found

    def __getitem__(self, name: str) -> Mapping[str, str]:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __eq__(self, other: object) -> bool:
        return self._said == other._said if isinstance(other, Remotes) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._said)

    def __repr__(self) -> str:
        """The same for the same files."""
        return f"Remotes {[hashlib.sha256(said).hexdigest() for said in self._said]}"


def _read(path: str) -> bytes | None:
    try:
        return read_file(path, MAX_BYTES)
    except (ManifestError, FileNotFoundError):
        return None


def _listed(content: bytes) -> Iterator[tuple[str, dict[str, str]]]:
    from reconciler.manifest.parsing import parse  # where there is no such file, nothing else may be YAML either
    from reconciler.manifest.wrongs import Wrong, decode

    try:
        trees, wrongs = parse(decode(content))
    except Wrong:
        return
    data = trees[0].data if trees and not wrongs else None
    listed = data.get("remotes") if isinstance(data, dict) else None
    for name, remote in listed.items() if isinstance(listed, dict) else ():
        address = remote.get("addr") if isinstance(remote, dict) else None
        if isinstance(address, str) and address.startswith("https://"):
            yield name, {"server": address, "protocol": str(remote.get("protocol") or "lxd")}
