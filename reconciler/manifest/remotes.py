"""LOAD: the image servers by name that LXD's own client knows, so that ``images:debian/12`` is the same.

Nothing but these names is taken from that file; one that is not there, not ours or not readable gives the usual ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from reconciler.manifest.reading import MAX_BYTES, read_file
from reconciler.problems import ManifestError

_USUAL = {
    "images": "https://images.lxd.canonical.com",
    "ubuntu": "https://cloud-images.ubuntu.com/releases",
    "ubuntu-daily": "https://cloud-images.ubuntu.com/daily",
    "ubuntu-minimal": "https://cloud-images.ubuntu.com/minimal/releases",
}
_PLACES = ("~/snap/lxd/common/config/config.yml", "~/.config/lxc/config.yml")


def remotes(path: str | None = None) -> Mapping[str, Mapping[str, str]]:
    """name → {server, protocol}; the client's own file wins over the usual names."""
    found = {name: {"server": url, "protocol": "simplestreams"} for name, url in _USUAL.items()}
    for place in [path] if path is not None else _PLACES:
        found.update(_of_file(os.path.expanduser(place)))
    return found


def _of_file(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        content = read_file(path, MAX_BYTES)
    except (ManifestError, FileNotFoundError):
        return
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
