"""RESOLVE: what is aimed at a container inside of a VM is led through both: the VM has it from this machine, and the
container from the VM. Pure, and the same whatever else there is: adding one of them shifts none of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler import attachments
from reconciler.desired import ResourceId
from reconciler.manifest import Document
from reconciler.resolution.scope import Scope, document_id

EMULATED: Mapping[str, tuple[str, str]] = {
    "usb-ccid": ("08e6", "4433"),
    "usb-kbd": ("0627", "0001"),
    "usb-mouse": ("0627", "0001"),
    "usb-serial": ("0403", "6001"),
    "usb-storage": ("46f4", "0001"),
    "usb-tablet": ("0627", "0001"),
    "usb-wacom-tablet": ("056a", "0000"),
}
"""QEMU's emulated USB devices that a container can be given → vendor and product that they show."""

_OWNER = 1000
"""The first ordinary user of this machine, and so of the VM: who has the same folders in the container as its user."""

Place = Sequence[str | int]


def defaults(
    machine: ResourceId | None, devices: Mapping[str, Mapping[str, str]], user: Mapping[str, Any]
) -> dict[str, str]:
    """LXD keys that a container inside of that VM has unless its manifest says otherwise. user: its declared account.

    It is started by us, once the VM has mounted what it needs, and not by the LXD inside, which would come too early.
    """
    if machine is None:
        return {}
    folders = (one for name, one in devices.items() if name.startswith("share-"))
    written = any(one["readonly"] == "false" for one in folders)
    mapped = {"raw.idmap": f"both {_OWNER} {user.get('uid', _OWNER)}"}
    return {"boot.autostart": "false", **(mapped if written else {})}


def share(scope: Scope, document: Document, guest: ResourceId, place: Place, entry: Mapping[str, Any]) -> str:
    """Have the VM mount it, for this container too; the path at which it does. entry: the VM's, but for the path."""
    id, machine = document_id(document), _machine(scope, guest)
    mounts = scope.spec(document)["mounts"]
    own = next((one["path"] for one in mounts if one["target"] == str(machine)), None)
    path = own or attachments.inside(id.kind, id.name)
    part, name = attachments.place(machine.kind, id)
    if own is None and name not in scope.attached.get(machine, {}).get(part, {}):
        scope.claim_path(document, place, machine, path)
        scope.attach(machine, part, name, {**entry, "path": path})
    return str(path)


def device(scope: Scope, document: Document, guest: ResourceId, spec: Mapping[str, Any]) -> dict[str, str] | None:
    """Give the VM the device; how LXD knows it there, or None with a problem where it cannot be led on."""
    ids = usb_ids(spec)
    if ids is None:
        what, hint = _not_led_on(spec)
        scope.problem(document, ("spec", what), f"{what}: {guest} is inside of a VM: {hint[0]}", hint[1])
        return None
    id, machine = document_id(document), _machine(scope, guest)
    entry = dict(spec["match"]) if "match" in spec else {"emulate": dict(spec["emulate"])}
    scope.attach(machine, *attachments.place(machine.kind, id), entry)
    return {"type": "usb", "vendorid": ids[0], "productid": ids[1]}


def usb_ids(spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """Vendor and product of a Device, where these are known."""
    if "emulate" in spec:
        return EMULATED.get(str(spec["emulate"]["driver"]))
    usb = spec["match"].get("usb", {})
    return (usb["vendor"], usb["product"]) if "vendor" in usb else None


def _not_led_on(spec: Mapping[str, Any]) -> tuple[str, tuple[str, str]]:
    if "emulate" in spec:
        known = ", ".join(sorted(EMULATED))
        return "emulate", (f"{spec['emulate']['driver']} cannot be given on to it", f"these can: {known}")
    if "usb" in spec["match"]:
        return "match", ("a USB device is given on by vendor and product", "say vendor and product, not bus and port")
    what = next(iter(spec["match"]))
    hint = "give it a USB device, or attach this one to the VirtualMachine"
    return "match", (f"a device that is matched by {what} cannot be given on to it", hint)


def note_alike(scope: Scope, document: Document, guest: ResourceId, spec: Mapping[str, Any]) -> None:
    """Remember that a VM, or something in it, has this Device, for ``refuse_alike``."""
    machine = guest if guest.kind == "VirtualMachine" else scope.machine_of(scope.documents[guest])
    if machine is not None and (ids := usb_ids(spec)) is not None:
        scope.alike.setdefault(machine, {}).setdefault(ids, []).append(document)


def refuse_alike(scope: Scope) -> None:
    """The LXD inside of a VM knows USB devices by vendor and product, and gives on every one that has these ids; it
    tells them apart only by serial numbers, which each of them must have then."""
    for machine, groups in scope.alike.items():
        for ids, documents in groups.items():
            led = [one for one in documents if one.data["spec"]["attachTo"] != str(machine)]
            if len(documents) < 2 or not led:
                continue
            serials = [_serial(one) for one in documents]
            if None not in serials and len(set(serials)) == len(serials):
                _by_serial(scope, led)
            else:
                _refuse(scope, machine, ids, documents, led[-1])


def _serial(document: Document) -> str | None:
    serial = document.data["spec"].get("match", {}).get("usb", {}).get("serial")
    return str(serial) if serial is not None else None


def _by_serial(scope: Scope, led: Sequence[Document]) -> None:
    for document in led:
        guest = ResourceId.parse(document.data["spec"]["attachTo"])
        part, name = attachments.place(guest.kind, document_id(document))
        scope.attached[guest][part][name]["serial"] = _serial(document)


def _refuse(
    scope: Scope, machine: ResourceId, ids: tuple[str, str], documents: Sequence[Document], one: Document
) -> None:
    other = next(document_id(other) for other in documents if other is not one)
    summary = f"attachTo: {other} is a {':'.join(ids)} in {machine} as well, and LXD could not tell them apart"
    scope.problem(one, ("spec", "attachTo"), summary, "have one of them in that VM, or match both by serial number")


def port(scope: Scope, document: Document, guest: ResourceId, spec: Mapping[str, Any]) -> int:
    """Have the VM forward it; the port inside of the VM at which the container's way goes on."""
    id, machine = document_id(document), _machine(scope, guest)
    number = attachments.passage(id.name)
    refuse_cardless(scope, document, machine)
    entry = attachments.machine_port(spec["listen"], number, spec["protocol"])
    scope.attach(machine, *attachments.place(machine.kind, id), entry)
    claim_port(scope, document, machine, spec["protocol"], number)
    return number


def claim_port(scope: Scope, document: Document, machine: ResourceId, protocol: str, number: int) -> None:
    """Note that something listens at a port of the VM; a problem when that is the way into one of its containers."""
    other = scope.passages.setdefault(machine, {}).setdefault((protocol, number), document)
    into = [ResourceId.parse(one.data["spec"]["target"]).kind for one in (other, document)]
    if other is not document and "Container" in into:
        summary = f"target: {document_id(other)} has port {number} of {machine}, which is given by the name"
        scope.problem(document, ("spec", "target"), summary, "give the one that leads into a container another name")


def refuse_cardless(scope: Scope, document: Document, machine: ResourceId) -> None:
    """A problem when the VM has no network card that a port could lead through."""
    if not (scope.documents[machine].data.get("spec") or {}).get("nics"):
        scope.problem(document, ("spec", "target"), f"target: {machine} has no network card", "give it one: nics")


def disk(scope: Scope, document: Document, guest: ResourceId, added: dict[str, Any]) -> None:
    """Have the VM mount the Disk, and the container have it from there. added: the VM's entry, but for the mount."""
    id, machine = document_id(document), scope.machine_of(scope.documents[guest])
    spec = scope.spec(document)
    if machine is None:
        summary = f"attachTo: {guest} is not inside of a VM, which a Disk is plugged into"
        scope.problem(document, ("spec", "attachTo"), summary, "a container elsewhere takes a Volume")
        return
    if "mount" not in spec:
        summary = f"attachTo: {guest} gets a folder, and it is not said where"
        scope.problem(document, ("spec", "attachTo"), summary, "say mount: the path in the container")
        return
    path = attachments.inside(id.kind, id.name)
    scope.claim_path(document, ("spec", "mount"), guest, spec["mount"])
    scope.claim_path(document, ("spec", "mount"), machine, path)
    scope.attach(machine, "disks", id.name, {**added, "mount": path})
    on = "true" if added["readOnly"] else "false"
    entry = {"type": "disk", "source": path, "path": spec["mount"], "readonly": on}
    # Its owners are the container's own: nobody else has this disk.
    scope.attach(guest, "devices", f"{attachments.DISK}{id.name}", {**entry, "shift": "true"})


def _machine(scope: Scope, guest: ResourceId) -> ResourceId:
    machine = scope.machine_of(scope.documents[guest])
    assert machine is not None  # the caller knows that it is inside of one
    return machine
