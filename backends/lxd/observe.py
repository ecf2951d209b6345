"""OBSERVE: what this LXD holds → Snapshot, in the same terms as Desired. A constant number of requests, whatever N."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from reconciler.backends.lxd.client import Client, is_missing_project
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.effects import rules_of
from reconciler.backends.lxd.inside import Sight, look
from reconciler.backends.lxd.marks import APPLIED, Mark, read_alias_description, read_mark, unfinished
from reconciler.backends.lxd.terms import containers, networks, plain
from reconciler.backends.lxd.within import Reader, SightWithin, look_within
from reconciler.diff import diff
from reconciler.model import LOCAL_HOST, Condition, Observed, ResourceId, Snapshot, Spec
from reconciler.problems import Refused

KINDS = ("Container", "Image", "Network", "Profile", "StoragePool", "Project", "Volume")
_INSIDE = frozenset({"Container", "Image", "Network", "Profile", "Volume"})  # what belongs to a project
OBSERVATION = 60.0
"""Seconds that one bulk read may take: at a thousand containers LXD needs a fifth of one."""


@dataclass(frozen=True, slots=True)
class Place:
    """The LXD that is looked at, once. host: its name in the manifests; spec: the Host's, as it was given;
    read: of an LXD inside of a VM, reads files of that VM; pools: read already, for those who need them, too."""

    client: Client
    backend: str
    host: str
    spec: Spec
    read: Reader | None = None
    pools: list[dict[str, Any]] = field(default_factory=list)


def observe(place: Place, only: Collection[ResourceId] | None) -> Snapshot:
    """Read the kinds that ``only`` names (all of them when None), each in one request; of a kind of which it names a
    few, these alone. Raises Unreachable."""
    within = Deadline.after(OBSERVATION)
    kinds = KINDS if only is None else tuple(kind for kind in KINDS if any(id.kind == kind for id in only))
    found: dict[ResourceId, Observed] = {}
    for kind in kinds:
        for one in _of_kind(place, kind, only, within):
            _keep(found, one)
    if only is None or any(id.kind == "Host" for id in only):
        if not kinds:
            place.client.get(within=within)  # nothing else was asked: the Host's own answer is wanted
        host = host_itself(place)
        found[host.id] = host
    if project := place.client.address.project:
        home = (ResourceId("Project", project),)
        found = {id: replace(one, needs=one.needs + home * (id.kind in _INSIDE)) for id, one in found.items()}
    if only is not None:
        found = {id: one for id, one in found.items() if id in only}
    return Snapshot(place.backend, time.time(), found)


def host_itself(place: Place) -> Observed:
    """A Host is what answers: never created, never changed, there as long as it does."""
    return Observed(ResourceId("Host", place.host), place.backend, place.spec, owned=True, applied=place.spec)


def _keep(found: dict[ResourceId, Observed], one: Observed) -> None:
    """Two pools may hold volumes of one name: ours goes first."""
    there = found.get(one.id)
    if there is None or (one.owned and not there.owned):
        found[one.id] = one


def image_id(name: str, host: str) -> ResourceId:
    """An image's id: ``Image/x`` on the local host, ``Image/x@far`` elsewhere."""
    return ResourceId("Image", name if host == LOCAL_HOST else f"{name}@{host}")


def image_name(id: ResourceId) -> str:
    """The alias in LXD of an image's id."""
    return id.name.partition("@")[0]


def revision(*parts: Any) -> str:
    """Short, and different whenever one of the parts is."""
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _of_kind(place: Place, kind: str, only: Collection[ResourceId] | None, within: Deadline) -> Iterable[Observed]:
    few = [id for id in only if id.kind == kind] if only is not None else []
    if kind not in _ALONE or not 0 < len(few) <= _FEW:
        return _READERS[kind](place, within)
    return [one for id in few for one in _ALONE[kind](place, within, id)]


def _find(place: Place, within: Deadline, *path: str) -> list[dict[str, Any]]:
    """One object, if it is there."""
    try:
        found = place.client.find(*path, within=within)
    except Refused as error:
        if is_missing_project(error):
            return []
        raise
    return [found.metadata] if found is not None else []


def _list(place: Place, within: Deadline, *path: str) -> Iterator[dict[str, Any]]:
    """A bulk read, one after the other. In a project that is not there yet there is nothing."""
    try:
        yield from place.client.each(*path, within=within, recursion="1")
    except Refused as error:
        if not is_missing_project(error):
            raise


def _containers(place: Place, within: Deadline, id: ResourceId | None = None) -> Iterator[Observed]:
    some = _list(place, within, "instances") if id is None else _find(place, within, "instances", id.name)
    found: Iterable[dict[str, Any]] = (raw for raw in some if raw["type"] == "container")
    sight: Sight | SightWithin | None = None
    if place.read is not None:  # inside of a VM it is looked at for all of them in one go, and they are few
        found = list(found)
        sight = look_within(place.client, place.read, found, within) if any(map(_is_plugged, found)) else None
    for raw in found:
        if sight is None and _is_plugged(raw):
            sight = look(place.client, within, raw if id is not None else None)
        yield observed_container(raw, place.backend, sight or Sight())


def _is_plugged(raw: Mapping[str, Any]) -> bool:
    """Whether more is to be seen of it than what LXD says."""
    return bool(raw["devices"] or _has_account(raw)) and containers.is_up(raw)


def observed_container(
    raw: Mapping[str, Any],
    backend: str,
    sight: Sight | SightWithin = Sight(),  # noqa: B008 frozen
) -> Observed:
    """One instance as we see it; sight: what can be seen of it besides."""
    id = ResourceId("Container", raw["name"])
    mark = read_mark(raw["config"], str(id))
    spec = containers.spec_of(raw, mark.applied if mark else None)
    missing = sight.missing(raw) if containers.is_up(raw) else {}
    if "user" in spec and isinstance(sight, Sight) and containers.is_up(raw):
        if (account := sight.account(raw, spec["user"])) is None:
            del spec["user"]
        else:
            spec["user"] = account
    for name in missing:
        spec["devices"][name].pop("type", None)  # it differs from whatever is wanted, and can still be taken away
    base = raw["config"].get("volatile.base_image")
    if mark and mark.image and mark.image.get("fingerprint") in (base, None):
        spec["image"] = {key: value for key, value in mark.image.items() if key != "fingerprint"}
    elif base:
        spec["image"] = {"fingerprint": base}
    return Observed(
        id,
        backend,
        spec,
        power=containers.power_of(raw["status"]),
        owned=mark is not None,
        revision=revision(*(raw[key] for key in _REVISED), sorted(missing)),
        environment=mark.environment if mark else None,
        applied=mark.applied if mark else None,
        pending=unfinished(mark, containers.is_up(raw)) if mark else None,
        needs=tuple(_container_needs(raw)),
        conditions=(*_waiting(mark), *_device_conditions(raw, missing)),
        later=mark.later if mark else None,
        rules=rules_of(raw["devices"] or {}, missing),
    )


def _has_account(raw: Mapping[str, Any]) -> bool:
    return '"user":{' in raw["config"].get(APPLIED, "")


_REVISED = ("config", "devices", "profiles", "ephemeral", "status")


def _waiting(mark: Mark | None) -> Iterator[Condition]:
    """What is declared, and waits for the container's next start."""
    if mark is not None and mark.later is not None:
        fields = sorted(change.field for change in diff(mark.later, mark.applied or {}, mark.applied))
        if fields:
            yield Condition("RestartPending", True, "Waiting", ", ".join(fields))


def _device_conditions(raw: Mapping[str, Any], missing: Mapping[str, str]) -> Iterator[Condition]:
    if missing:
        said = "; ".join(f"{name}: {why}" for name, why in sorted(missing.items()))
        yield Condition("DevicesPluggedIn", False, "Missing", said)
    strange = containers.strangers(raw)
    if strange:
        yield Condition("ShareOwners", False, "NotMapped", f"{', '.join(strange)}: {_NOT_MAPPED}")


_NOT_MAPPED = (
    "files belong to nobody (65534) inside, and can be read and written as anybody may; their owners are mapped where "
    "LXD and its kernel can do so, and, for what may be written, no ordinary user of the host can enter the folder"
)


def _container_needs(raw: Mapping[str, Any]) -> Iterator[ResourceId]:
    for name in raw["profiles"] or ():
        yield ResourceId("Profile", name)
    yield from _device_needs((raw["devices"] or {}).values())


def _device_needs(devices: Iterable[Mapping[str, str]]) -> Iterator[ResourceId]:
    for device in devices:
        if device.get("type") == "nic" and (network := device.get("network")):
            yield ResourceId("Network", network)
        if device.get("type") == "disk" and (pool := device.get("pool")):
            yield ResourceId("StoragePool", pool)
            if source := device.get("source"):
                yield ResourceId("Volume", source)


def _images(place: Place, within: Deadline) -> Iterator[Observed]:
    shared = _shares_images(place, within)
    for raw in _list(place, within, "images"):
        if raw["type"] == "container":
            for alias in raw["aliases"] or ():
                one = observed_image(place, raw, alias)
                yield replace(one, environment=None) if shared else one


def _image(place: Place, within: Deadline, id: ResourceId) -> Iterator[Observed]:
    for alias in _find(place, within, "images", "aliases", image_name(id)):
        if alias["type"] == "container":
            one = observed_image(place, {"fingerprint": alias["target"]}, alias)
            yield replace(one, environment=None) if _shares_images(place, within) else one


def _shares_images(place: Place, within: Deadline) -> bool:
    """Whether the project uses the default project's images: ours too then, but not to be pruned from here."""
    if (project := place.client.address.project) is None:
        return False
    found = place.client.find("projects", project, within=within)
    return found is not None and found.metadata["config"].get("features.images") != "true"


def observed_image(place: Place, raw: Mapping[str, Any], alias: Mapping[str, str]) -> Observed:
    """One alias as we see it; the image behind it may have others."""
    mark = read_alias_description(alias.get("description") or "", f"Image/{alias['name']}")
    applied = mark.applied if mark else None
    spec = dict(applied) if applied else {"type": "container", "fingerprint": raw["fingerprint"]}
    return Observed(
        image_id(alias["name"], place.host),
        place.backend,
        spec,
        owned=mark is not None,
        revision=raw["fingerprint"],
        environment=mark.environment if mark else None,
        applied=applied,
    )


def _networks(place: Place, within: Deadline, id: ResourceId | None = None) -> Iterator[Observed]:
    for raw in _list(place, within, "networks") if id is None else _find(place, within, "networks", id.name):
        yield _plain("Network", raw, place, networks.spec_of)


def _profiles(place: Place, within: Deadline, id: ResourceId | None = None) -> Iterator[Observed]:
    for raw in _list(place, within, "profiles") if id is None else _find(place, within, "profiles", id.name):
        yield _plain("Profile", raw, place, plain.profile_spec, _device_needs((raw["devices"] or {}).values()))


def _pools(place: Place, within: Deadline) -> Iterator[Observed]:
    for raw in _pool_list(place, within):
        yield _plain("StoragePool", raw, place, plain.pool_spec)


def _pool_list(place: Place, within: Deadline) -> list[dict[str, Any]]:
    if not place.pools:
        place.pools.extend(_list(place, within, "storage-pools"))
    return place.pools


def _projects(place: Place, within: Deadline) -> Iterator[Observed]:
    for raw in _list(place, within, "projects"):
        yield _plain("Project", raw, place, plain.project_spec)


def _volumes(place: Place, within: Deadline) -> Iterator[Observed]:
    """One request a pool: their number does not grow with what they hold."""
    for pool in _pool_list(place, within):
        for raw in _list(place, within, "storage-pools", pool["name"], "volumes", "custom"):
            raw["pool"] = pool["name"]
            yield _plain("Volume", raw, place, plain.volume_spec, [ResourceId("StoragePool", pool["name"])])


def _plain(
    kind: str,
    raw: Mapping[str, Any],
    place: Place,
    spec_of: Callable[[Mapping[str, Any], Spec | None], Spec],
    needs: Iterable[ResourceId] = (),
) -> Observed:
    """An object whose mark is in its config."""
    id = ResourceId(kind, raw["name"])
    mark = read_mark(raw["config"] or {}, str(id))
    return Observed(
        id,
        place.backend,
        spec_of(raw, mark.applied if mark else None),
        owned=mark is not None,
        revision=revision(raw["config"], raw.get("devices"), raw.get("description")),
        environment=mark.environment if mark else None,
        applied=mark.applied if mark else None,
        pending=mark.pending if mark else None,
        needs=tuple(needs),
    )


_READERS: Mapping[str, Callable[[Place, Deadline], Iterator[Observed]]] = {
    "Container": _containers,
    "Image": _images,
    "Network": _networks,
    "Profile": _profiles,
    "StoragePool": _pools,
    "Project": _projects,
    "Volume": _volumes,
}
_ALONE: Mapping[str, Callable[[Place, Deadline, ResourceId], Iterator[Observed]]] = {
    "Container": _containers,
    "Image": _image,
    "Network": _networks,
    "Profile": _profiles,
}
_FEW = 3
"""As many as this are asked for one by one: what a look at one guest takes hangs on no others then."""
