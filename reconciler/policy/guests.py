"""POLICY: what a Container or VirtualMachine wants of the host."""

from __future__ import annotations

from reconciler.policy.images import check_remote
from reconciler.policy.raw import check_config, check_devices, check_privileged, nesting, privileged
from reconciler.policy.wishes import KERNELS, Wishes


def check_container(wishes: Wishes) -> None:
    """On a host inside of a VM it may do as it likes, but for being root of that VM; and its image is somebody's."""
    spec = wishes.spec
    if "remote" in (image := spec.get("image", {})):
        check_remote(wishes, ("image",), image["remote"])
    if spec.get("privileged"):
        privileged(wishes, ("privileged",))
    if wishes.inside:
        check_privileged(wishes, spec.get("config", {}))
        return
    if spec.get("nesting"):
        nesting(wishes, ("nesting",))
    check_config(wishes, spec.get("config", {}))
    raw = {name: one for name, one in spec.get("devices", {}).items() if name not in wishes.carried}
    check_devices(wishes, raw)


def check_machine(wishes: Wishes) -> None:
    """Files of the host that it reads or writes, and bridges that it is put on."""
    spec = wishes.spec
    for part in ("kernel", "initrd"):
        if isinstance(given := spec.get("boot", {}).get(part), str):
            wishes.host_path(("boot", part), given, KERNELS)
    for name, disk in spec.get("disks", {}).items():
        if "path" in disk:
            wishes.host_path(("disks", name, "path"), disk["path"])
    for name, nic in spec.get("nics", {}).items():
        if nic.get("type") == "bridge":
            wishes.interface(("nics", name, "bridge"), nic["bridge"])
