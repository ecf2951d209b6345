"""RESOLVE: images. A guest's ``image`` → a reference with an identity; Image documents → one Desired a host.

The identity changes when, and only when, the declared source changes: it is what ``imagePolicy: follow`` follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.desired import LOCAL_HOST, QEMU, Desired, ResourceId, lxd_backend
from reconciler.manifest import Document
from reconciler.resolution.scope import Scope, digest, hosts_lxd

Reference = tuple[dict[str, Any], ResourceId | None]
Inline = tuple[str, Mapping[str, Any], Document]
"""An image that stands in a guest: its type, its source, and the guest."""
_TYPE_OF = {"Container": "container", "VirtualMachine": "virtual-machine"}


def image_reference(scope: Scope, document: Document, path: Sequence[str | int], given: Any) -> Reference:
    """A guest's ``image`` → what goes into its spec, and the Image that it needs (None for ``remote:alias``)."""
    if isinstance(given, Mapping):
        return _inline(scope, document, path, given)
    if ":" in given:
        return _remote(scope, document, path, given), None
    id = ResourceId("Image", given)
    if (image := scope.refer(document, path, id)) is None:
        return {"name": given, "identity": ""}, None
    expected, actual = _TYPE_OF[document.data["kind"]], image.data["spec"].get("type")
    if actual != expected:
        scope.problem(document, path, f"image: expected an Image of type {expected}, got {id} of type {actual}")
    if given not in scope.identities:  # a thousand guests may share it
        scope.identities[given] = digest(_source(scope, image, image.data["spec"]["source"]))
    return {"name": given, "identity": scope.identities[given]}, _needed(scope, document, given)


def images(scope: Scope) -> list[Desired]:
    """Every Image, once for each host that has to have it."""
    found: list[Desired] = []
    for id, document in scope.documents.items():
        if id.kind == "Image":
            found += declared_image(scope, document)
    for name, inline in scope.inline_images.items():
        found += inline_image(scope, name, inline)
    return found


def declared_image(scope: Scope, document: Document) -> list[Desired]:
    """An Image, once for each host that has to have it."""
    return list(_on_hosts(scope, document, document.data["metadata"]["name"], scope.spec(document)))


def inline_image(scope: Scope, name: str, inline: Inline) -> list[Desired]:
    """The same of one that stands in guests."""
    type_, source, document = inline
    return list(_on_hosts(scope, document, name, {"type": type_, "source": source, "deletionPolicy": "delete"}))


def host_image(name: str, host: str) -> ResourceId:
    """The id of an image on a host: ``Image/x`` at home, ``Image/x@far`` elsewhere."""
    return ResourceId("Image", name if host == LOCAL_HOST else f"{name}@{host}")


def _inline(scope: Scope, document: Document, path: Sequence[str | int], given: Mapping[str, Any]) -> Reference:
    source = given.get("source", given)
    identity = digest(_source(scope, document, source))
    name = f"inline-{identity[:12]}"
    scope.inline_images[name] = (_TYPE_OF[document.data["kind"]], source, document)
    return {"name": name, "identity": identity}, _needed(scope, document, name)


def _needed(scope: Scope, document: Document, name: str) -> ResourceId:
    host = scope.host_of(document) if document.data["kind"] == "Container" else LOCAL_HOST
    scope.image_hosts.setdefault(name, set()).add(host)
    return host_image(name, host)


def _remote(scope: Scope, document: Document, path: Sequence[str | int], given: str) -> dict[str, Any]:
    remote, _, alias = given.partition(":")
    known = scope.surroundings.remotes.get(remote) or _host_as_remote(scope, remote)
    if document.data["kind"] == "VirtualMachine":
        scope.problem(document, path, "image: a VirtualMachine boots from an Image; remote:alias is for containers")
    if known is None:
        names = ", ".join(sorted(scope.surroundings.remotes))
        scope.problem(document, path, f'image: there is no remote "{remote}"', f"known are: {names}")
        return {"remote": {}, "identity": ""}
    named = {"fingerprint": alias} if _is_fingerprint(alias) else {"alias": alias}
    source = {"server": known["server"], "protocol": known["protocol"], **named}
    return {"remote": source, "identity": digest(source)}


def _host_as_remote(scope: Scope, name: str) -> Mapping[str, str] | None:
    document = scope.documents.get(ResourceId("Host", name))
    url = ((document.data.get("spec") or {}).get("lxd") or {}).get("url") if document is not None else None
    return {"server": url, "protocol": "lxd"} if url else None


def _is_fingerprint(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _on_hosts(scope: Scope, document: Document, name: str, spec: Mapping[str, Any]) -> Iterator[Desired]:
    source = _source(scope, document, spec["source"])
    resolved = {**spec, "source": source, "identity": digest(source)}
    if spec["type"] == "virtual-machine":
        yield _image(scope, document, ResourceId("Image", name), QEMU, resolved)
        return
    for host in sorted(scope.image_hosts.get(name, {LOCAL_HOST})):
        yield _image(scope, document, host_image(name, host), lxd_backend(host), resolved, host)


def _image(
    scope: Scope, document: Document, id: ResourceId, backend: str, spec: Mapping[str, Any], host: str | None = None
) -> Desired:
    places = (ResourceId("Host", host), ResourceId("VirtualMachine", host)) if host is not None else ()
    needs = tuple(place for place in places if place in scope.documents and _gives_lxd(scope, place))
    needs += scope.project_on(host) if host is not None else ()
    return Desired(id, backend, spec, needs, (), document.mark, document.data["metadata"].get("labels") or {})


def _gives_lxd(scope: Scope, place: ResourceId) -> bool:
    """Every Host does; of the VMs only those that say so."""
    return place.kind == "Host" or hosts_lxd(scope.documents[place])


def _source(scope: Scope, document: Document, source: Mapping[str, Any]) -> dict[str, Any]:
    """The source with absolute paths, and a stamp for local files so that a changed file is a changed image."""
    resolved = dict(source)
    for key in ("file", "rootfs"):
        if key in source:
            resolved[key] = scope.path(document, source[key])
    if "file" in resolved:
        resolved["stamp"] = _stamp(scope, document, resolved["file"])
    if "rootfs" in resolved:
        resolved["rootfsStamp"] = _stamp(scope, document, resolved["rootfs"], "rootfs")
    if build := source.get("build"):
        paths = {key: scope.path(document, build[key]) for key in ("kernel", "modules") if key in build}
        resolved["build"] = {**build, **paths}
    if "server" in source:
        resolved.setdefault("protocol", "simplestreams")
    return resolved


def _stamp(scope: Scope, document: Document, path: str, field: str = "file") -> str:
    try:
        return scope.surroundings.stamp(path)
    except OSError as error:
        where = ("spec", "source", field) if document.data["kind"] == "Image" else ("spec",)
        scope.problem(
            document, where, f"{field}: {path}: {error.strerror}", "the path is taken from the manifest's folder"
        )
        return ""
